import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useLoaded } from "../../api/use";
import { Button } from "../../components/Button";
import { Chart, type Line, type Range } from "../../components/Chart";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Field } from "../../components/Field";
import { Form } from "../../components/Form";
import { SelectField } from "../../components/SelectField";
import { Skeleton } from "../../components/Skeleton";
import { TextField } from "../../components/TextField";
import { count } from "../../format";
import { useKept } from "../../kept";
import { address } from "../../router";
import { type Compared, LastValues, Validation } from "./CurveTables";
import {
  type Curves,
  detailed,
  type Figure,
  groupsOf,
  hasPoint,
  seriesOf,
  smoothed,
  whyNoRange,
} from "./curves";
import { controlsOf, getJob, listJobs } from "./data";
import { controlWord, hasEnded, type Job, titleOf } from "./job";
import { curvesBegin, pace } from "./progress";
import { getCurves } from "./useJob";

interface Props {
  job: Job;
  /** Of all steps. */
  curves: Curves | undefined;
  /** With every detail of the range. */
  zoomed: Curves | undefined;
  /** The id or the name of the job whose curves are laid over. */
  other: string | undefined;
  range: Range | undefined;
  onRange: (range: Range | undefined) => void;
}

const DASH = [6, 4];
const AGAIN_S = 5;
const MAX_SMOOTHING = 0.99;

export function CurvesPanel({ job, curves, zoomed, other, range, onRange }: Props) {
  const [smoothing, setSmoothing] = useKept("curves smoothing", 0);
  const [log, setLog] = useKept("curves log", false);
  const over = useOther(other, range);
  if (!curves || !zoomed) return <Skeleton lines={8} />;
  const groups = groupsOf({ ...over.data?.curves, ...curves });
  if (!groups.length) return <NoCurves job={job} />;
  const title = titleOf(job);
  const whole = { job: title, curves, other: over.data };
  const detail = over.data && { job: over.data.job, curves: over.data.zoomed };
  const drawn = { job: title, curves: zoomed, other: detail, smoothing };
  const isEmpty = range && ![zoomed, over.data?.zoomed ?? {}].some((each) => hasPoint(each, range));
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
      {over.data && !groupsOf(over.data.curves).length && (
        <p class="muted">
          {titleOf(over.data.job)} has no curves to lay over. {curvesBegin(over.data.job)}
        </p>
      )}
      {isEmpty && (
        <p class="muted" role="status">
          No point was logged from step {count(range[0])} to {count(range[1])}. A line joins the points before
          and after. {pace(job)}
        </p>
      )}
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
      <Validation drawn={whole} />
      <LastValues drawn={whole} figures={groups.flatMap(({ figures }) => figures)} />
    </section>
  );
}

interface Drawn extends Compared {
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
      const [job, curves, part] = await Promise.all([
        getJob(other),
        getCurves(other),
        range && getCurves(other, range),
      ]);
      setOpen(!hasEnded(job.status));
      return { job, curves, zoomed: range ? detailed(curves, part, range) : curves };
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
    <SelectField
      label="Lay over the curves of"
      value={other ?? ""}
      options={[
        ["", "No other job"],
        ...controls.map((each) => [each.id, `${titleOf(each)} (${controlWord(each)})`] as const),
        ...(other !== undefined && !isListed ? [[other, other] as const] : []),
        ...others.map((each) => [each.id, `${titleOf(each)} · ${each.objective}`] as const),
      ]}
      onChange={(chosen) => {
        location.hash = address(["jobs", job.id], { with: chosen });
      }}
    />
  );
}

/** What this job is best compared with, then the newest jobs. */
async function candidates(job: Job) {
  const [newest, controls] = await Promise.all([listJobs({ kind: "finetune", limit: 100 }), controlsOf(job)]);
  const listed = new Set([job.id, ...controls.map(({ id }) => id)]);
  return {
    controls,
    others: newest.data.flatMap((each) =>
      each.kind === "finetune" && each.started_at !== null && !listed.has(each.id) ? [each] : [],
    ),
  };
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
  const why = whyNoRange(from, to);
  return (
    <Form
      class="row curves-steps"
      onSubmit={() => {
        if (!why) onRange([Number(from), Number(to)]);
      }}
    >
      <TextField label="From step" inputMode="numeric" value={from} onChange={setFrom} />
      <TextField label="To step" error={to && why} inputMode="numeric" value={to} onChange={setTo} />
      <Button type="submit" disabled={why !== undefined} title={why}>
        Zoom
      </Button>
      <Button disabled={!range} onClick={() => onRange(undefined)}>
        All steps
      </Button>
    </Form>
  );
}

function NoCurves({ job }: { job: Job }) {
  if (job.kind !== "finetune") return null;
  return (
    <EmptyState title={hasEnded(job.status) ? "There are no curves." : "There are no curves yet."}>
      {curvesBegin(job)}
    </EmptyState>
  );
}
