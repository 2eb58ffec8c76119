import { useState } from "preact/hooks";
import { api, ask } from "../../api/client";
import { currentSession, may } from "../../api/session";
import { useLoaded } from "../../api/use";
import { StatusBadge } from "../../components/Badge";
import { Button } from "../../components/Button";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { Time } from "../../components/Time";
import { bytes, shortId } from "../../format";
import { address } from "../../router";
import { getJob } from "../jobs/data";
import { AuditTable } from "./AuditTable";
import { DeleteDialog } from "./DeleteDialog";
import { Configuration, Facts, type Maker } from "./Description";
import { Figures } from "./Figures";
import { findVersion } from "./find";
import { type Detail, useEachTurn, useLiveRegistry } from "./live";
import { AliasBadges, shortReference, VersionLink } from "./names";
import { Promote } from "./Promote";
import { whyNotDelete, whyNotDownload, whyNotPromote } from "./rights";

/** A version by its id or an alias: what it is, how good it is, and what can be done with it. */
export function VersionPage({ id }: { id: string }) {
  const found = useLoaded(() => findVersion(id), [id]);
  useEachTurn(found.reload);
  return (
    <>
      <nav aria-label="Back" class="small">
        <a href={address(["versions"])}>All versions</a>
      </nav>
      {found.data ? (
        <Shown detail={found.data} />
      ) : found.error?.status === 404 ? (
        <>
          <h1>{shortId(id)}</h1>
          <EmptyState title="There is no such version.">
            It may be deleted, or belong to another key. The beginning of an id is enough if no other
            version’s begins so. <a href={address(["versions"])}>See the versions that there are.</a>
          </EmptyState>
        </>
      ) : (
        <>
          <h1>{shortId(id)}</h1>
          <ErrorNote error={found.error} onRetry={found.reload} />
          {!found.error && <Skeleton lines={10} />}
        </>
      )}
    </>
  );
}

function Shown({ detail }: { detail: Detail }) {
  const { models } = useLiveRegistry();
  const [isPromoting, setPromoting] = useState(false);
  const maker = useMaker(detail.job_id);
  const aliases = models.data?.aliases ?? [];
  const names = models.data
    ? aliases.filter(({ version }) => version === detail.id).map(({ name }) => name)
    : detail.aliases;
  const version = { ...detail, aliases: names };
  return (
    <>
      <div class="stack close">
        <div class="row">
          <h1>
            <code>{shortId(detail.id)}</code>
          </h1>
          <AliasBadges names={names} />
          {detail.status !== "ready" && <StatusBadge status={detail.status} />}
        </div>
        <Sentence detail={detail} maker={maker} />
      </div>
      <Actions version={version} isPromoting={isPromoting} onPromote={() => setPromoting(!isPromoting)} />
      {isPromoting && <Promote version={version} aliases={aliases} onClose={() => setPromoting(false)} />}
      <Figures detail={detail} />
      <div class="columns version-columns">
        <Facts version={version} maker={maker} />
        <Relatives detail={detail} />
      </div>
      <Promotions id={detail.id} />
      <Configuration detail={detail} />
    </>
  );
}

function useMaker(id: string | null | undefined): Maker {
  return useLoaded(async () => (id && may("train") ? await getJob(id) : null), [id]).data;
}

/** "Made by the job job_1 from demo, 3 min ago." */
function Sentence({ detail, maker }: { detail: Detail; maker: Maker }) {
  const { job_id, base, base_version, created_at } = detail;
  if (!base_version) {
    return (
      <p class="muted">
        One of the service’s own models{base && `: ${base}`}. No job made it. First used{" "}
        <Time at={created_at} />.
      </p>
    );
  }
  return (
    <p class="muted">
      Made {job_id && <>by the job </>}
      {job_id && (
        <a href={address(["jobs", job_id])} title={job_id}>
          {maker?.name || job_id}
        </a>
      )}{" "}
      from{" "}
      {base && base !== base_version ? (
        <>
          <span title={base}>{shortReference(base)}</span> (<VersionLink id={base_version} />)
        </>
      ) : (
        <VersionLink id={base_version} />
      )}
      , <Time at={created_at} />.
    </p>
  );
}

interface ActionsProps {
  version: Detail;
  isPromoting: boolean;
  onPromote: () => void;
}

function Actions({ version, isPromoting, onPromote }: ActionsProps) {
  const { models } = useLiveRegistry();
  const [isDeleting, setDeleting] = useState(false);
  const key = currentSession()?.key;
  const children = (models.data?.versions ?? []).filter(({ base_version }) => base_version === version.id);
  const why = {
    promote: whyNotPromote(key, version, models.data?.aliases ?? []),
    download: whyNotDownload(key, version),
    delete: whyNotDelete(key, version, children.length),
  };
  const isDelta = version.base_version !== null;
  return (
    <div class="stack close">
      <div class="row">
        <Button
          {...(!isPromoting && { look: "primary" })}
          disabled={why.promote !== undefined || !models.data}
          aria-expanded={isPromoting}
          onClick={onPromote}
        >
          Promote…
        </Button>
        {!why.download && (
          <>
            <a class="button version-download" href={downloadUrl(version.id)} download>
              {isDelta ? "Download the change" : "Download"}, {bytes(version.size_bytes)}
            </a>
            {isDelta && (
              <a
                class="button plain version-download"
                href={`${downloadUrl(version.id)}?weights=full`}
                download
              >
                Download the full weights
              </a>
            )}
          </>
        )}
        <Button look="danger" disabled={why.delete !== undefined} onClick={() => setDeleting(true)}>
          Delete…
        </Button>
      </div>
      <ul class="muted small">
        {isDelta && !why.download && (
          <li>
            The change has only the tensors that were trained, and needs its base. The full weights stand
            alone.
          </li>
        )}
        {[why.promote, why.download, why.delete]
          .filter((each) => each !== undefined)
          .map((each) => (
            <li key={each}>{each}</li>
          ))}
      </ul>
      <DeleteDialog version={version} open={isDeleting} onClose={() => setDeleting(false)} />
    </div>
  );
}

const downloadUrl = (id: string) => `models/${encodeURIComponent(id)}/download`;

/** What it was made from, back to the first, and what was made from it. */
function Relatives({ detail }: { detail: Detail }) {
  const { models } = useLiveRegistry();
  const children = (models.data?.versions ?? []).filter(({ base_version }) => base_version === detail.id);
  return (
    <section class="card stack close" aria-labelledby="relatives">
      <h2 id="relatives">Lineage</h2>
      <dl class="facts">
        <dt>Made from</dt>
        <dd>
          {detail.lineage.length ? (
            <ol>
              {detail.lineage.map((id) => (
                <li key={id}>
                  <VersionLink id={id} />
                </li>
              ))}
            </ol>
          ) : (
            <span class="muted">–</span>
          )}
        </dd>
        <dt>Versions made from it</dt>
        <dd>
          {children.length ? (
            <ul>
              {children.map(({ id, aliases }) => (
                <li key={id} class="row">
                  <VersionLink id={id} />
                  <AliasBadges names={aliases} />
                </li>
              ))}
            </ul>
          ) : (
            <span class="muted">No version yet</span>
          )}
        </dd>
      </dl>
    </section>
  );
}

const NEWEST = 100;

/** When aliases came to this version and left it. */
function Promotions({ id }: { id: string }) {
  const audit = useLoaded(() => ask(api.GET("/promotions", { params: { query: { limit: NEWEST } } })), []);
  useEachTurn(audit.reload);
  const lines = audit.data?.data.filter(
    ({ from_version, to_version }) => from_version === id || to_version === id,
  );
  return (
    <section class="stack close" aria-labelledby="promotions">
      <h2 id="promotions">Promotions</h2>
      <ErrorNote error={audit.error} onRetry={audit.reload} />
      {lines?.length ? (
        <AuditTable caption="What was done to aliases of this version, newest first" lines={lines} />
      ) : (
        <p class="muted">{lines ? "No alias has pointed to it, as far as this key sees." : "Loading…"}</p>
      )}
      {audit.data?.has_more && (
        <p class="muted small">
          Only the newest {NEWEST} entries are searched.{" "}
          <a href={address(["versions"], { tab: "audit" })}>The audit trail has all of them.</a>
        </p>
      )}
    </section>
  );
}
