import { type ComponentChildren, Fragment } from "preact";
import { api, ask, type Schemas } from "../../api/client";
import { type Datasets, dataName } from "../../api/datasets";
import { useLoaded, useReloaded } from "../../api/use";
import { Badge } from "../../components/Badge";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import {
  bytes,
  capital,
  count,
  duration,
  figure,
  percent,
  points,
  shareInterval,
  shortId,
} from "../../format";
import { address } from "../../router";
import { useNow } from "../../use-now";
import { figuresOf, mainOf, measuredBy } from "../results/figures";
import { resultAddress } from "../results/filters";
import type { Metric } from "../versions/figures";
import type { Curves } from "./curves";
import { controlsOf } from "./data";
import { controlWord, type Finetune, hasEnded, type Job, titleOf } from "./job";
import { attempts, nobody, runTime } from "./progress";
import { benchmarkName, figureTitle } from "./words";

const AGAIN_S = 10;
const MIB = 2 ** 20;

interface Warned {
  code: string;
  message: string;
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
export function Result({ job, datasets }: { job: Job; datasets: Datasets }) {
  const gain = job.improvement;
  const warnings = (job.result?.warnings ?? []) as Warned[];
  const promotion = job.result?.promotion as { promoted: boolean; why: string } | undefined;
  const isMeasured = job.kind === "finetune" && job.status === "succeeded";
  const controls = useLoaded(async () => (isMeasured ? controlsOf(job) : []), [job.id, isMeasured]);
  useReloaded(controls.data?.some(({ status }) => !hasEnded(status)) ?? false, controls.reload, AGAIN_S);
  const rows: [string, ComponentChildren][] = [];
  if (job.status !== "succeeded") return null;
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
      figureTitle(gain.metric),
      `${percent(gain.model)}, ${points(gain.difference)} points from ${percent(gain.baseline)}${than}`,
    ]);
  }
  if (job.kind === "finetune" && job.result_version) {
    rows.push(...measured(job, datasets, controls.data ?? []));
  }
  if (promotion?.why) rows.push([promotion.promoted ? "Promoted" : "Not promoted", promotion.why]);
  if (job.kind === "evaluate") {
    const metrics = Object.entries((job.result?.metrics ?? {}) as Record<string, Metric>);
    for (const [name, metric] of metrics) rows.push([figureTitle(name), told(metric)]);
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

/** The main figure of each benchmark that the job measured its version on, beside that of its control. */
function measured(
  job: Finetune,
  datasets: Datasets,
  controls: readonly Finetune[],
): [string, ComponentChildren][] {
  return measuredBy(job).flatMap((each): [string, ComponentChildren][] => {
    const { on = "", benchmark, data } = each;
    const main = mainOf(each);
    if (!main) return [];
    return [
      [
        capital(`${benchmarkName(benchmark)} on ${dataName(data, datasets)}`),
        <>
          {figureTitle(figuresOf(each)?.primary ?? "")} {told(main)}.{" "}
          <a href={resultAddress(job.id, undefined, { on })}>See the items</a>
          {controls.map((control) => {
            const same = measuredBy(control).find((other) => other.on === on);
            const other = same && mainOf(same);
            return (
              other && (
                <p key={control.id}>
                  {titleOf(control)} ({controlWord(control)}) has {percent(other.value)}.{" "}
                  <a href={resultAddress(job.id, control.id, { on })}>Compare the items</a>
                </p>
              )
            );
          })}
        </>,
      ],
    ];
  });
}

/** "29.6 %, 95 % interval 25.5 to 33.9 %, by chance 16.7 %" */
function told({ value, low, high, chance }: Metric): string {
  const parts = [
    percent(value),
    low !== undefined && high !== undefined && `95 % interval ${shareInterval(low, high)}`,
    chance != null && `by chance ${percent(chance)}`,
  ];
  return parts.filter(Boolean).join(", ");
}

export function Resources({ job, curves }: { job: Job; curves: Curves | undefined }) {
  const workers = useLoaded(
    () => ask(api.GET("/workers")),
    [job.status],
    hasEnded(job.status) ? undefined : AGAIN_S,
  );
  const now = useNow(1);
  const worker = workers.data?.data.find((each) => each.job === job.id);
  const memory = curves?.peak_memory_mib?.last.value;
  const speed = curves?.examples_per_s?.last.value;
  return (
    <Facts
      title="Resources"
      rows={[
        ["Worker", worker ? `${worker.host}, process ${worker.pid}, on ${worker.device}` : nobody(job)],
        ["Attempt", attempts(job)],
        ["Interruptions", `${job.interruptions} of at most ${job.max_interruptions}`],
        ["Ran for", `${duration(runTime(job, now))} of at most ${duration(job.max_run_time_s)}`],
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
  if (job.kind !== "finetune") return null;
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
