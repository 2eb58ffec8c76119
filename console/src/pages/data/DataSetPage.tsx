import { useState } from "preact/hooks";
import { api, ask } from "../../api/client";
import { useAction, useLoaded, useReloaded } from "../../api/use";
import { announce } from "../../components/Announcer";
import { StatusBadge } from "../../components/Badge";
import { Button } from "../../components/Button";
import { Confirm } from "../../components/Confirm";
import { ErrorNote } from "../../components/ErrorNote";
import { Fact } from "../../components/Fact";
import { Skeleton } from "../../components/Skeleton";
import { Time } from "../../components/Time";
import { bytes, capital, count, percent } from "../../format";
import { address } from "../../router";
import { CheckCard } from "./CheckCard";
import type { DataSet } from "./findings";
import { meaningOf, PAIRS } from "./formats";
import { HistogramCard } from "./HistogramCard";
import { Samples } from "./Samples";

export function DataSetPage({ id }: { id: string }) {
  const loaded = useLoaded(
    () => ask(api.GET("/datasets/{dataset_id}", { params: { path: { dataset_id: id } } })),
    [id],
  );
  const set = loaded.data;
  useReloaded(set?.status === "validating", loaded.reload);
  return (
    <div class="page">
      <p>
        <a href="#/data">All data</a>
      </p>
      {set ? <Head set={set} /> : <h1>{id}</h1>}
      <ErrorNote error={loaded.error} onRetry={loaded.reload} />
      {set ? <Body set={set} /> : !loaded.error && <Skeleton lines={12} />}
    </div>
  );
}

function Head({ set }: { set: DataSet }) {
  return (
    <div class="row apart">
      <div class="stack close">
        <div class="row">
          <h1>{set.name || set.id}</h1>
          <StatusBadge status={set.status} />
        </div>
        <p class="muted">
          <code>{set.format}</code> · {meaningOf(set.format)}
        </p>
      </div>
      <div class="row">
        {set.status === "ready" && <Use set={set} />}
        {set.status !== "deleted" && <Delete set={set} />}
      </div>
    </div>
  );
}

function Use({ set }: { set: DataSet }) {
  const kind = set.format === PAIRS ? undefined : "evaluate";
  return (
    <a class="button primary" href={address(["new"], { kind, data: set.id })}>
      {kind ? "Evaluate on it" : "Train on it"}
    </a>
  );
}

function Delete({ set }: { set: DataSet }) {
  const [asked, setAsked] = useState(false);
  const deleting = useAction(async () => {
    await ask(api.DELETE("/datasets/{dataset_id}", { params: { path: { dataset_id: set.id } } }));
    announce(`${set.name || set.id} is deleted.`);
    location.hash = "#/data";
  });
  return (
    <>
      <Button look="danger" onClick={() => setAsked(true)}>
        Delete
      </Button>
      <Confirm
        title={`Delete ${set.name || set.id}?`}
        open={asked}
        onClose={() => setAsked(false)}
        verb="Delete"
        action={deleting}
      >
        <p>
          {set.source.kind === "registered"
            ? "The service forgets the data set. The files stay where they are on the server."
            : "Its files are removed from the server, and cannot be brought back."}{" "}
          Results of jobs that used it stay, without the pictures.
        </p>
      </Confirm>
    </>
  );
}

function Body({ set }: { set: DataSet }) {
  const { caption_words: words, image_longer_side: sides } = set.statistics ?? {};
  return (
    <>
      <div class="columns data-top">
        <CheckCard set={set} />
        <Facts set={set} />
      </div>
      {(words || sides) && (
        <div class="data-histograms">
          {words && (
            <HistogramCard title="Words of each caption" unit="words" of="captions" histogram={words} />
          )}
          {sides && (
            <HistogramCard title="Longer side of each image" unit="pixels" of="images" histogram={sides} />
          )}
        </div>
      )}
      {set.status === "ready" && <Samples id={set.id} />}
    </>
  );
}

function Facts({ set }: { set: DataSet }) {
  const { source } = set;
  return (
    <section class="card stack" aria-label="Facts">
      <dl class="facts">
        {Object.entries(set.counts ?? {}).map(([name, number]) => (
          <Fact key={name} name={capital(name)}>
            {count(number)}
          </Fact>
        ))}
        <Fact name="Unusable samples allowed">{percent(set.max_bad_share)}</Fact>
        <Fact name="Source">
          {{ archive: "an archive", shards: "shards", registered: "files on the server" }[source.kind]}
        </Fact>
        <Fact name="Path">{source.path && <code>{source.path}</code>}</Fact>
        <Fact name="Size">{source.size_bytes !== null && bytes(source.size_bytes)}</Fact>
        <Fact name="Created">
          <Time at={set.created_at} />
        </Fact>
        <Fact name="Checked">
          <Time at={set.checked_at} />
        </Fact>
        <Fact name="Owner">{set.owner}</Fact>
        <Fact name="Id">
          <code>{set.id}</code>
        </Fact>
        <Fact name="Content">
          {set.content_hash && (
            <code title={`SHA-256 of everything that a model sees: ${set.content_hash}`}>
              {set.content_hash.slice(0, 16)}
            </code>
          )}
        </Fact>
      </dl>
    </section>
  );
}
