import { type ComponentChildren, Fragment } from "preact";
import { api, ask, type Schemas } from "../../api/client";
import { useLoaded } from "../../api/use";
import { Badge } from "../../components/Badge";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { bytes, count, duration, figure, percent, points, shortId } from "../../format";
import { address } from "../../router";
import type { Curves } from "./curves";
import { hasEnded, type Job } from "./job";

const AGAIN_S = 10;
const MIB = 2 ** 20;

interface Warned {
  code: string;
  message: string;
}

interface Metric {
  value: number;
  chance?: number | null;
}

function Facts({ title, rows }: { title: string; rows: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <section class="stack close" aria-label={title}>
      <h2>{title}</h2>
      <dl class="facts">
        {rows.map(([name, value]) => (
          <Fragment key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </Fragment>
        ))}
      </dl>
    </section>
  );
}

/** What the job has come to: its version, how much better it is, and what to know of it. */
export function Result({ job }: { job: Job }) {
  if (job.status !== "succeeded") return null;
  const gain = job.improvement;
  const warnings = (job.result?.warnings ?? []) as Warned[];
  const promotion = job.result?.promotion as { promoted: boolean; why: string } | undefined;
  const rows: [string, ComponentChildren][] = [];
  if (job.result_version) {
    rows.push([
      "Version",
      <a key="version" href={address(["versions", job.result_version])} title={job.result_version}>
        {shortId(job.result_version)}
      </a>,
    ]);
  }
  if (gain) {
    const than = gain.compared_with ? ` of ${shortId(gain.compared_with)}` : " before";
    rows.push([
      gain.metric.replaceAll("_", " "),
      `${percent(gain.model)}, ${points(gain.difference)} points from ${percent(gain.baseline)}${than}`,
    ]);
  }
  if (promotion?.why) rows.push([promotion.promoted ? "Promoted" : "Not promoted", promotion.why]);
  if (job.kind === "evaluate") {
    const metrics = Object.entries((job.result?.metrics ?? {}) as Record<string, Metric>);
    for (const [name, { value, chance }] of metrics) {
      rows.push([
        name.replaceAll("_", " "),
        `${percent(value)}${chance == null ? "" : `, by chance ${percent(chance)}`}`,
      ]);
    }
    rows.push([
      "By tag",
      <a key="results" href={address(["results", job.id])}>
        See the results
      </a>,
    ]);
  }
  for (const { code, message } of warnings) {
    rows.push([
      "Warning",
      <span key={code}>
        <Badge tone="warn">{code.replaceAll("_", " ")}</Badge> {message}
      </span>,
    ]);
  }
  return <Facts title="Result" rows={rows} />;
}

export function Resources({ job, curves }: { job: Job; curves: Curves | undefined }) {
  const workers = useLoaded(
    () => ask(api.GET("/workers")),
    [job.status],
    hasEnded(job.status) ? undefined : AGAIN_S,
  );
  const worker = workers.data?.data.find((each) => each.job === job.id);
  const memory = curves?.peak_memory_mib?.last.value;
  const speed = curves?.examples_per_s?.last.value;
  return (
    <Facts
      title="Resources"
      rows={[
        ["Worker", worker ? `${worker.host}, process ${worker.pid}, on ${worker.device}` : none(job)],
        ["Attempt", `${job.attempt}; without progress, ${job.max_attempts} at most`],
        ["Interruptions", `${job.interruptions} of at most ${job.max_interruptions}`],
        ["Ran for", `${duration(job.run_time_s)} of at most ${duration(job.max_run_time_s)}`],
        ...(job.kind === "finetune"
          ? ([
              ["Peak memory", bytes(memory == null ? null : memory * MIB)],
              ["Speed", speed == null ? "–" : `${figure(speed)} pairs per second`],
            ] as const)
          : []),
        ["Created", <Created key="created" job={job} />],
        ["Started", <Time key="started" at={job.started_at} />],
        ["Ended", <Time key="ended" at={job.finished_at} />],
      ]}
    />
  );
}

function Created({ job }: { job: Job }) {
  return (
    <>
      <Time at={job.created_at} />
      {job.owner && ` by ${job.owner}`}
    </>
  );
}

function none(job: Job): string {
  if (hasEnded(job.status)) return "The job has ended.";
  return job.no_worker
    ? "No worker for this kind of job is running. Start one."
    : "None has taken the job yet.";
}

/** What the caller wrote beside the job. */
export function Notes({ job }: { job: Job }) {
  const notes = Object.entries(job.metadata).map(([name, value]) => [name, String(value)] as const);
  const rows = [...(job.suffix ? [["suffix", job.suffix] as const] : []), ...notes];
  return rows.length ? <Facts title="Notes" rows={rows} /> : null;
}

type Checkpoint = Schemas["CheckpointInfo"];

const COLUMNS: Column<Checkpoint>[] = [
  {
    name: "Step",
    number: true,
    cell: ({ step, newest }) => (
      <>
        {newest && <Badge tone="accent">newest</Badge>} {count(step)}
      </>
    ),
  },
  { name: "Loss", number: true, cell: ({ metrics }) => figure(metrics?.values.loss) },
  { name: "Size", number: true, cell: ({ size_bytes }) => bytes(size_bytes) },
  { name: "Saved", number: true, cell: ({ created_at }) => <Time at={created_at} /> },
];

export function Checkpoints({ job }: { job: Job }) {
  const isOpen = !hasEnded(job.status);
  const { data } = useLoaded(
    () => ask(api.GET("/jobs/{job_id}/checkpoints", { params: { path: { job_id: job.id } } })),
    [job.id, job.status, job.files_removed_at],
    isOpen ? AGAIN_S : undefined,
  );
  if (job.kind === "evaluate") return null;
  return (
    <section class="stack close" aria-label="Checkpoints">
      <h2>Checkpoints</h2>
      {data?.data.length ? (
        <Table
          caption="Checkpoints, the newest first"
          columns={COLUMNS}
          rows={data.data.toReversed()}
          keyOf={({ step }) => step}
        />
      ) : (
        <p class="muted">
          {isOpen
            ? "None has been saved yet."
            : "None is kept. Checkpoints are removed when a job succeeds, and when its files are deleted."}
        </p>
      )}
    </section>
  );
}
