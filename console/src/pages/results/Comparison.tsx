import { api, ask, type Schemas } from "../../api/client";
import { useNewestDatasets } from "../../api/datasets";
import { useLoaded } from "../../api/use";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { SelectField } from "../../components/SelectField";
import { Skeleton } from "../../components/Skeleton";
import { Time } from "../../components/Time";
import { shortId } from "../../format";
import { Counts } from "./Counts";
import { DifferenceTable } from "./DifferenceTable";
import { addressOf, type Evaluation, nameOf, pairOf } from "./figures";
import { type Filters, resultAddress } from "./filters";
import { Items } from "./Items";
import { getEvaluations } from "./load";
import { DataName, ModelName } from "./Names";
import { isClear, titleOf, verdict } from "./words";

type Comparison = Schemas["ComparisonInfo"];

interface Props {
  id: string;
  /** The job that came before, or null for the job's own baseline. */
  other: string | null;
  filters: Filters;
}

/** What two jobs have measured of the same items: what changed, by outcome, by tag, and item by item. */
export function ComparisonPage({ id, other, filters }: Props) {
  const jobs = useLoaded(async () => {
    const [measured, others] = await Promise.all([
      getEvaluations(id),
      other === null ? null : getEvaluations(other),
    ]);
    return pairOf(measured, others ?? [], filters.on);
  }, [id, filters.on, other]);
  const comparison = useLoaded(() => {
    const query = { ...(filters.on && { on: filters.on }), ...(other !== null && { with: other }) };
    return ask(api.GET("/jobs/{job_id}/comparison", { params: { path: { job_id: id }, query } }));
  }, [id, filters.on, other]);
  const exchange = () => {
    const { on: _, ...rest } = filters;
    if (jobs.data?.before) location.replace(addressOf(jobs.data.before, id, rest));
  };
  return (
    <div class="page">
      <p class="small">
        <a href="#/results">All results</a>
      </p>
      <h1>Comparison</h1>
      <ErrorNote error={jobs.error} onRetry={jobs.reload} />
      {jobs.data?.after && (
        <Sides
          before={jobs.data.before}
          after={jobs.data.after}
          onExchange={other === null ? undefined : exchange}
        />
      )}
      <ErrorNote
        error={jobs.error ? undefined : comparison.error}
        {...(comparison.error?.code !== "not_comparable" && { onRetry: comparison.reload })}
      />
      {!comparison.data && !comparison.error && !jobs.error && <Skeleton lines={8} />}
      {comparison.data && <Shown comparison={comparison.data} id={id} other={other} filters={filters} />}
    </div>
  );
}

interface SidesProps {
  before: Evaluation | undefined;
  after: Evaluation;
  onExchange: (() => void) | undefined;
}

function Sides({ before, after, onExchange }: SidesProps) {
  const datasets = useNewestDatasets();
  return (
    <div class="stack close">
      <div class="results-sides">
        <section class="card stack close" aria-label="Before">
          <p class="small muted">Before</p>
          {before ? (
            <Side job={before} />
          ) : (
            <p class="results-title">{shortId(after.baseline ?? "The baseline of the job")}</p>
          )}
        </section>
        {onExchange && (
          <Button title="Swap before and after" onClick={onExchange}>
            <span aria-hidden="true">⇄</span> Exchange
          </Button>
        )}
        <section class="card stack close" aria-label="After">
          <p class="small muted">After</p>
          <Side job={after} />
        </section>
      </div>
      <p class="muted">
        {after.benchmark} on <DataName job={after} datasets={datasets} />
      </p>
    </div>
  );
}

function Side({ job }: { job: Evaluation }) {
  return (
    <>
      <p class="results-title">
        <a href={addressOf(job)}>{nameOf(job)}</a>
      </p>
      <p class="small muted">
        <ModelName job={job} /> · <Time at={job.finished_at} />
      </p>
    </>
  );
}

interface ShownProps extends Props {
  comparison: Comparison;
}

function Shown({ comparison, id, other, filters }: ShownProps) {
  const { outcomes, by_tag, macro } = comparison;
  const names = Object.keys(outcomes);
  const outcome = filters.outcome && outcomes[filters.outcome] ? filters.outcome : comparison.outcome;
  const difference = outcomes[outcome];
  const set = (next: Filters) => location.replace(resultAddress(id, other, next));
  const overall = [
    ...(macro ? [{ title: titleOf(macro.metric), of: macro }] : []),
    ...names.flatMap((name) => (outcomes[name] ? [{ title: titleOf(name), of: outcomes[name] }] : [])),
  ];
  const tagged = Object.entries(by_tag).flatMap(([tag, of]) =>
    of[outcome] ? [{ title: tag, of: of[outcome] }] : [],
  );
  const filtered = filters.tag ? by_tag[filters.tag]?.[outcome] : difference;
  return (
    <>
      <section class="stack" aria-labelledby="differences">
        <h2 id="differences">All items</h2>
        <ul class="stack close">
          {headlines(comparison).map((name) => {
            const of = outcomes[name];
            return of && <li key={name}>{verdict(titleOf(name), of)}</li>;
          })}
        </ul>
        <DifferenceTable caption="Differences over all items" of="Outcome" rows={overall} />
        <p class="small muted">
          Differences are after minus before, in percentage points, with 95 % intervals. The dashed line is no
          difference; a hollow dot says that the interval contains it. p is that of McNemar’s exact test,
          two-sided.
        </p>
      </section>
      {names.length > 1 && (
        <div class="results-filters">
          <SelectField
            label="Outcome"
            help="What follows looks at this one."
            value={outcome}
            onChange={(chosen) => set({ ...filters, outcome: chosen })}
            options={names.map((name) => [name, titleOf(name)])}
          />
        </div>
      )}
      {difference && <Counts title={titleOf(outcome)} of={difference} />}
      {tagged.length > 0 && (
        <section class="stack" aria-labelledby="tags">
          <h2 id="tags">{titleOf(outcome)} by tag</h2>
          <DifferenceTable caption={`Differences by tag in ${titleOf(outcome)}`} of="Tag" rows={tagged} />
          {tagged.length > 1 && (
            <p class="small muted">
              {tagged.filter(({ of }) => isClear(of)).length} of {tagged.length} intervals do not contain 0.
              The p-values are not corrected for the number of tags.
            </p>
          )}
        </section>
      )}
      <section class="stack" aria-labelledby="items">
        <h2 id="items">Items</h2>
        <Items
          id={id}
          other={other}
          outcome={outcome}
          filters={filters}
          tags={Object.keys(by_tag)}
          counts={filtered?.counts}
          onFilters={set}
        />
      </section>
    </>
  );
}

/** The main outcome and GroupMatch, as everywhere. */
function headlines({ outcome, outcomes }: Comparison): string[] {
  return Object.keys(outcomes).filter((name) => name === outcome || name === "group_match");
}
