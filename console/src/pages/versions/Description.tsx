import type { Schemas } from "../../api/client";
import { currentSession } from "../../api/session";
import { Fact } from "../../components/Fact";
import { Time } from "../../components/Time";
import { bytes, counted } from "../../format";
import { DatasetLink, useDatasets } from "./datasets";
import { entriesOf, textAt } from "./description";
import { type Detail, useLiveRegistry } from "./live";
import { JobLink } from "./names";
import { nameOf } from "./rollout";

/** What the version is and where it comes from. */
export function Facts({ version, maker }: { version: Detail; maker: Maker }) {
  const { models } = useLiveRegistry();
  const { description } = version;
  const served = models.data?.served.find((model) => model.version === version.id);
  const at = (path: string) => textAt(description, path);
  const trained = description.trained;
  const data = at("configuration.data");
  const sets = useDatasets(data ? [data] : []);
  return (
    <section class="card stack close" aria-labelledby="facts">
      <h2 id="facts">Description</h2>
      <dl class="facts">
        <Fact name="Id">
          <code>{version.id}</code>
        </Fact>
        <Fact name="Architecture">{at("architecture") ?? at("base.architecture")}</Fact>
        <Fact name="Precision">
          {[
            served && `${served.precision}, as it is served`,
            at("configuration.precision") && `${at("configuration.precision")}, as it was trained`,
          ]
            .filter(Boolean)
            .join("; ")}
        </Fact>
        <Fact name="Size">{bytes(version.size_bytes)}</Fact>
        <Fact name="Trained">{Array.isArray(trained) && counted(trained.length, "tensor")}</Fact>
        <Fact name="Objective">{at("configuration.objective")}</Fact>
        <Fact name="Teacher">{at("configuration.teacher")}</Fact>
        <Fact name="Data">{data && <DatasetLink id={data} sets={sets} />}</Fact>
        <Fact name="Data hash">
          {at("data.data_hash") && <code class="version-hash">{at("data.data_hash")}</code>}
        </Fact>
        <Fact name="Job">{version.job_id && <JobFacts id={version.job_id} job={maker} />}</Fact>
        <Fact name="Owner">{currentSession()?.needs_key && version.owner}</Fact>
        <Fact name="Created">
          <Time at={version.created_at} />
        </Fact>
        <Fact name="Damaged">
          {version.damaged_at && (
            <>
              found <Time at={version.damaged_at} />
            </>
          )}
        </Fact>
        <Fact name="Served by">
          <ServedBy id={version.id} />
        </Fact>
      </dl>
    </section>
  );
}

/** The job that made a version, for a key that may see jobs. */
export type Maker = Schemas["JobInfo"] | null | undefined;

/** The job with what its owner called it. */
function JobFacts({ id, job }: { id: string; job: Maker }) {
  const { name, suffix, metadata } = job ?? {};
  return (
    <>
      <JobLink id={id} />
      {name && name !== id && <div>{name}</div>}
      {suffix && <div class="muted">suffix {suffix}</div>}
      {Object.entries(metadata ?? {}).map(([key, value]) => (
        <div key={key} class="muted">
          {key}: {String(value)}
        </div>
      ))}
    </>
  );
}

function ServedBy({ id }: { id: string }) {
  const { status } = useLiveRegistry();
  const serving = (status.data?.processes ?? []).flatMap((process) =>
    process.models.filter(({ version }) => version === id).map((name) => ({ ...name, process })),
  );
  if (!serving.length) return <span class="muted">no process</span>;
  return (
    <ul>
      {serving.map(({ name, process, since }) => (
        <li key={`${process.process} ${name}`}>
          {nameOf(process)}, as {name}, since <Time at={since} />
        </li>
      ))}
    </ul>
  );
}

/** How it was trained, and all else that its folder says. */
export function Configuration({ detail }: { detail: Detail }) {
  const { configuration, evaluations: _, trained: __, ...rest } = detail.description;
  return (
    <section class="stack close" aria-label="Details">
      <Entries title="Training configuration" entries={entriesOf(configuration)} />
      <Entries title="Everything else that describes it" entries={entriesOf(rest)} />
    </section>
  );
}

function Entries({ title, entries }: { title: string; entries: [string, string][] }) {
  if (!entries.length) return null;
  return (
    <details class="card">
      <summary>
        {title} <span class="muted small">{counted(entries.length, "value")}</span>
      </summary>
      <dl class="facts version-entries">
        {entries.map(([path, text]) => (
          <Fact key={path} name={path}>
            {text}
          </Fact>
        ))}
      </dl>
    </details>
  );
}
