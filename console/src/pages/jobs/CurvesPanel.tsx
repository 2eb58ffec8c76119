import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useLoaded } from "../../api/use";
import { Button } from "../../components/Button";
import { Chart, type Line, type Range } from "../../components/Chart";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Field } from "../../components/Field";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { figure, percent } from "../../format";
import { useKept } from "../../kept";
import { address } from "../../router";
import { type Curves, type Figure, groupsOf, seriesOf, smoothed, VALIDATION } from "./curves";
import { getJob, listJobs } from "./data";
import { hasEnded, type Job, titleOf } from "./job";
import { getCurves } from "./useJob";

interface Props {
  job: Job;
  curves: Curves | undefined;
  /** The id or the name of the job whose curves are laid over. */
  other: string | undefined;
  range: Range | undefined;
  onRange: (range: Range | undefined) => void;
}

const DASH = [6, 4];
const AGAIN_S = 5;
const MAX_SMOOTHING = 0.99;

export function CurvesPanel({ job, curves, other, range, onRange }: Props) {
  const [smoothing, setSmoothing] = useKept("curves smoothing", 0);
  const [log, setLog] = useKept("curves log", false);
  const over = useOther(other, range);
  if (!curves) return <Skeleton lines={8} />;
  const groups = groupsOf({ ...over.data?.curves, ...curves });
  if (!groups.length) return <NoCurves job={job} />;
  const drawn = { job: titleOf(job), curves, other: over.data, smoothing };
  return (
    <section class="stack" aria-label="Curves">
      <h2>Curves</h2>
      <div class="curves-controls">
        <OtherField job={job} other={other} />
        <Field label="Smoothing">
          {(control) => (
            <span class="row curves-smoothing">
              <input
                {...control}
                type="range"
                min="0"
                max={MAX_SMOOTHING}
                step="0.01"
                value={smoothing}
                onInput={({ currentTarget }) => setSmoothing(Number(currentTarget.value))}
              />
              <output>{smoothing.toFixed(2)}</output>
            </span>
          )}
        </Field>
        <label class="row curves-log">
          <input type="checkbox" checked={log} onChange={() => setLog(!log)} />
          Log scale
        </label>
        <Steps range={range} onRange={onRange} />
      </div>
      <ErrorNote error={over.error} onRetry={over.reload} />
      {groups.map((group) => (
        <section key={group.title} class="stack close" aria-label={group.title}>
          <h3 class="muted">{group.title}</h3>
          <div class="curves-grid">
            {group.figures.map((each) => (
              <FigureChart
                key={each.name}
                figure={each}
                drawn={drawn}
                log={log}
                range={range}
                onZoom={onRange}
              />
            ))}
          </div>
        </section>
      ))}
      <p class="muted small">Drag across a chart to zoom in, and double-click to see all steps.</p>
      <Validation drawn={drawn} />
      <LastValues drawn={drawn} figures={groups.flatMap(({ figures }) => figures)} />
    </section>
  );
}

interface Drawn {
  job: string;
  curves: Curves;
  other: { job: Job; curves: Curves } | undefined;
  smoothing: number;
}

interface FigureProps {
  figure: Figure;
  drawn: Drawn;
  log: boolean;
  range: Range | undefined;
  onZoom: (range: Range | undefined) => void;
}

function FigureChart({ figure: { name, title, note, mark }, drawn, log, range, onZoom }: FigureProps) {
  const { job, curves, other, smoothing } = drawn;
  const lines = useMemo(
    () => linesOf({ job, curves, other, smoothing }, name),
    [job, curves, other, smoothing, name],
  );
  return (
    <Chart
      title={title}
      note={note}
      x="Step"
      lines={lines}
      log={log}
      mark={mark}
      range={range}
      onZoom={onZoom}
      sync="curves"
    />
  );
}

/** This job in one colour, the other one dashed in another. A smoothed line has the values faintly behind it. */
function linesOf({ job, curves, other, smoothing }: Drawn, name: string): Line[] {
  const own = lines(job, 1, undefined, curves, name, smoothing);
  return other ? [...own, ...lines(titleOf(other.job), 2, DASH, other.curves, name, smoothing)] : own;
}

function lines(
  title: string,
  series: 1 | 2,
  dash: readonly number[] | undefined,
  curves: Curves,
  name: string,
  smoothing: number,
): Line[] {
  const { steps, values } = seriesOf(curves, name);
  if (!steps.length) return [];
  const line: Line = { name: title, series, ...(dash && { dash }), xs: steps, ys: values };
  if (smoothing === 0) return [line];
  return [
    { ...line, faint: true },
    { ...line, ys: smoothed(values, smoothing) },
  ];
}

/** The job that is laid over, which may be running too. */
function useOther(other: string | undefined, range: Range | undefined) {
  const [isOpen, setOpen] = useState(false);
  const loaded = useLoaded(
    async () => {
      if (other === undefined) return undefined;
      const [job, curves] = await Promise.all([getJob(other), getCurves(other, range)]);
      setOpen(!hasEnded(job.status));
      return { job, curves };
    },
    [other, range?.[0], range?.[1]],
    isOpen ? AGAIN_S : undefined,
  );
  // Another part of the same curves takes their place without a moment in which there are none.
  const before = useRef(loaded.data);
  if (loaded.data) before.current = loaded.data;
  const isSame =
    before.current !== undefined && [before.current.job.id, before.current.job.name].includes(other ?? "");
  return { ...loaded, data: loaded.data ?? (isSame ? before.current : undefined) };
}

function OtherField({ job, other }: { job: Job; other: string | undefined }) {
  const { data } = useLoaded(() => candidates(job), [job.id]);
  const controls = data?.controls ?? [];
  const others = data?.others ?? [];
  const isListed = [...controls, ...others].some(({ id }) => id === other);
  return (
    <Field label="Lay over the curves of">
      {(control) => (
        <select
          {...control}
          value={other ?? ""}
          onChange={({ currentTarget }) => {
            location.hash = address(["jobs", job.id], { with: currentTarget.value });
          }}
        >
          <option value="">No other job</option>
          {controls.map((each) => (
            <option key={each.id} value={each.id}>
              {titleOf(each)} ({each.objective === "clip" ? "the control" : "of this control"})
            </option>
          ))}
          {other !== undefined && !isListed && <option value={other}>{other}</option>}
          {others.map((each) => (
            <option key={each.id} value={each.id}>
              {titleOf(each)} · {each.objective}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

/** What this job is best compared with, then the newest jobs. */
async function candidates(job: Job) {
  const named = [job.metadata.control, job.name && `${job.name}-control`, job.metadata.control_of];
  const asked = [...new Set(named.filter((name): name is string => typeof name === "string" && name !== ""))];
  const [newest, ...found] = await Promise.all([
    listJobs({ kind: "finetune", limit: 100 }),
    ...asked.map((name) => (name.startsWith("job_") ? getJob(name).catch(() => undefined) : byName(name))),
  ]);
  const isOther = (each: Job | undefined) => each?.kind === "finetune" && each.id !== job.id;
  const controls = [...new Map(found.filter(isOther).map((each) => [each?.id, each])).values()];
  const ids = new Set(controls.map((each) => each?.id));
  return {
    controls: controls.flatMap((each) => (each?.kind === "finetune" ? [each] : [])),
    others: newest.data.flatMap((each) =>
      each.kind === "finetune" && isOther(each) && !ids.has(each.id) ? [each] : [],
    ),
  };
}

/** Without asking for a job that may not exist. */
async function byName(name: string): Promise<Job | undefined> {
  const { data } = await listJobs({ name, kind: "finetune", limit: 20 });
  return data.find((job) => job.name === name);
}

/** The part that is shown, for those who do not draw with a mouse. */
function Steps({
  range,
  onRange,
}: {
  range: Range | undefined;
  onRange: (range: Range | undefined) => void;
}) {
  const [from, setFrom] = useState("");
  const [to, setTo] = useState("");
  useEffect(() => {
    setFrom(range ? String(range[0]) : "");
    setTo(range ? String(range[1]) : "");
  }, [range]);
  const [first, last] = [Number(from || 0), Number(to)];
  const isRange =
    to !== "" && Number.isInteger(first) && Number.isInteger(last) && first >= 0 && first < last;
  return (
    <form
      class="row curves-steps"
      onSubmit={(event) => {
        event.preventDefault();
        if (isRange) onRange([first, last]);
      }}
    >
      <Field label="From step">
        {(control) => (
          <input
            {...control}
            inputMode="numeric"
            value={from}
            onInput={(event) => setFrom(event.currentTarget.value)}
          />
        )}
      </Field>
      <Field label="To step">
        {(control) => (
          <input
            {...control}
            inputMode="numeric"
            value={to}
            onInput={(event) => setTo(event.currentTarget.value)}
          />
        )}
      </Field>
      <Button type="submit" disabled={!isRange}>
        Zoom
      </Button>
      <Button disabled={!range} onClick={() => onRange(undefined)}>
        All steps
      </Button>
    </form>
  );
}

interface Measured {
  name: string;
  title: string;
  before: number | null | undefined;
  own: number | null | undefined;
  other: number | null | undefined;
}

/** A share of right answers, or a loss. */
const measured = (name: string, value: number | null | undefined) =>
  name === "validation_clip" ? figure(value) : percent(value);

/** What was measured on the validation data, of the base and of the trained models. */
function Validation({ drawn: { job, curves, other } }: { drawn: Drawn }) {
  const rows = VALIDATION.filter(({ name }) => curves[name]).map(
    ({ name, title }): Measured => ({
      name,
      title,
      before: curves[`base_${name}`]?.last.value,
      own: curves[name]?.last.value,
      other: other?.curves[name]?.last.value,
    }),
  );
  if (!rows.length) return null;
  const columns: Column<Measured>[] = [
    { name: "Figure", cell: ({ title }) => <span class="job-value">{title}</span> },
    { name: "Base", number: true, cell: ({ name, before }) => measured(name, before) },
    { name: job, number: true, cell: ({ name, own }) => measured(name, own) },
  ];
  if (other)
    columns.push({ name: titleOf(other.job), number: true, cell: (row) => measured(row.name, row.other) });
  return (
    <section class="stack close" aria-label="Validation">
      <h3 class="muted">Validation</h3>
      <Table caption="On the validation data" columns={columns} rows={rows} keyOf={({ title }) => title} />
    </section>
  );
}

interface Last {
  title: string;
  own: number | null | undefined;
  other: number | null | undefined;
  step: number | undefined;
}

/** What the charts end with, as a table. */
function LastValues({
  drawn,
  figures,
}: {
  drawn: Drawn;
  figures: readonly { name: string; title: string }[];
}) {
  const rows = figures.map(({ name, title }): Last => {
    const own = seriesOf(drawn.curves, name);
    const other = drawn.other && seriesOf(drawn.other.curves, name);
    return { title, step: own.steps.at(-1), own: own.values.at(-1), other: other?.values.at(-1) };
  });
  const columns: Column<Last>[] = [
    { name: "Figure", cell: ({ title }) => title },
    { name: "Step", number: true, cell: ({ step }) => figure(step) },
    { name: drawn.job, number: true, cell: ({ own }) => figure(own) },
  ];
  if (drawn.other) {
    columns.push({ name: titleOf(drawn.other.job), number: true, cell: ({ other }) => figure(other) });
  }
  return (
    <details>
      <summary>The last values as a table</summary>
      <Table caption="Last values of the curves" columns={columns} rows={rows} keyOf={({ title }) => title} />
    </details>
  );
}

function NoCurves({ job }: { job: Job }) {
  if (job.kind === "evaluate") return null;
  return (
    <EmptyState title="There are no curves.">
      {hasEnded(job.status)
        ? "The job ended before it logged its first step."
        : "They begin when a worker has trained the first steps."}
    </EmptyState>
  );
}
