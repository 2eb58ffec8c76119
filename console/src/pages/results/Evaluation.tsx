import { useState } from "preact/hooks";
import { serviceUrl } from "../../api/client";
import { useNewestDatasets } from "../../api/datasets";
import { useLoaded } from "../../api/use";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { Fact } from "../../components/Fact";
import { Form } from "../../components/Form";
import { SelectField } from "../../components/SelectField";
import { Skeleton } from "../../components/Skeleton";
import { Time } from "../../components/Time";
import { address } from "../../router";
import {
  addressOf,
  anotherAddress,
  type Evaluation,
  type Figures,
  figuresOf,
  isComparable,
  keyOf,
  metricsInOrder,
  nameOf,
  totalsOf,
} from "./figures";
import type { Filters } from "./filters";
import { Items } from "./Items";
import { getEvaluation, listEvaluations } from "./load";
import { MetricTable } from "./MetricTable";
import { DataName, ModelName } from "./Names";
import { titleOf } from "./words";

/** What a job has measured on one data set: its metrics over all items and by tag, and the items themselves. */
export function EvaluationPage({ id, filters }: { id: string; filters: Filters }) {
  const job = useLoaded(() => getEvaluation(id, filters.on), [id, filters.on]);
  const figures = job.data && figuresOf(job.data);
  return (
    <div class="page">
      <p class="small">
        <a href="#/results">All results</a>
      </p>
      <h1>{job.data ? nameOf(job.data) : "Evaluation"}</h1>
      <ErrorNote error={job.error} onRetry={job.reload} />
      {!job.data && !job.error && <Skeleton lines={8} />}
      {job.data && !figures && (
        <p>
          This evaluation has no results: it is {job.data.status}.{" "}
          <a href={address(["jobs", job.data.id])}>See the job.</a>
        </p>
      )}
      {job.data && figures && <Shown job={job.data} figures={figures} filters={filters} />}
    </div>
  );
}

function Shown({ job, figures, filters }: { job: Evaluation; figures: Figures; filters: Filters }) {
  const rows = metricsInOrder(figures).map(([name, metric]) => ({ title: titleOf(name), metric }));
  const tags = Object.keys(figures.by_tag ?? {});
  return (
    <>
      <Facts job={job} figures={figures} />
      <section class="stack" aria-labelledby="metrics">
        <h2 id="metrics">Metrics</h2>
        <MetricTable caption="Metrics over all items" of="Metric" rows={rows} />
        <p class="small muted">
          The dashed line is chance: what random scores reach. The bar is the 95 % interval. A tie counts as
          wrong.
        </p>
      </section>
      {tags.length > 0 && <ByTag figures={figures} />}
      <section class="stack" aria-labelledby="items">
        <h2 id="items">Items</h2>
        <Items
          id={job.id}
          outcome={figures.outcome}
          totals={totalsOf(figures, filters.tag)}
          filters={{ ...filters, ...(job.on && { on: job.on }) }}
          tags={tags}
          onFilters={(next) => location.replace(addressOf(job, undefined, next))}
        />
      </section>
    </>
  );
}

function Facts({ job, figures }: { job: Evaluation; figures: Figures }) {
  const datasets = useNewestDatasets();
  const { items, items_used } = figures.provenance;
  return (
    <section class="card stack" aria-label="What was measured">
      <dl class="facts">
        <Fact name="Model">
          <ModelName job={job} />
        </Fact>
        <Fact name="Benchmark">{job.benchmark}</Fact>
        <Fact name="Data">
          <DataName job={job} datasets={datasets} />
          {items !== undefined && items_used !== undefined && items_used < items && (
            <>
              {" "}
              ({items_used} of {items} items could be used)
            </>
          )}
        </Fact>
        <Fact name="Finished">
          <Time at={job.finished_at} />
        </Fact>
        <dt>More</dt>
        <dd class="row">
          <a href={address(["jobs", job.id])}>Job</a>
          {job.report && <a href={`${serviceUrl()}${job.report}`}>Report</a>}
          {figures.baseline && <a href={addressOf(job, null)}>Comparison with its baseline</a>}
        </dd>
      </dl>
      <CompareWith job={job} />
    </section>
  );
}

/** The other evaluations of the same data, with which this one can be compared. */
function CompareWith({ job }: { job: Evaluation }) {
  const [chosen, setChosen] = useState("");
  const listed = useLoaded(() => listEvaluations(), []);
  const others = listed.data?.data.filter((other) => isComparable(job, other)) ?? [];
  if (!listed.data) return <ErrorNote error={listed.error} onRetry={listed.reload} />;
  if (!others.length) {
    return (
      <p class="muted">
        Nothing else has measured these data yet. To compare,{" "}
        <a href={anotherAddress(job)}>measure another model on them</a>.
      </p>
    );
  }
  const other = others.find((each) => keyOf(each) === chosen) ?? others[0];
  return (
    <Form
      class="results-compare"
      onSubmit={() => {
        if (other) location.hash = addressOf(job, other.id);
      }}
    >
      <SelectField
        label="Compare with"
        value={other ? keyOf(other) : ""}
        onChange={setChosen}
        options={others.map((each) => [keyOf(each), nameOf(each)])}
      />
      <Button type="submit">Compare</Button>
    </Form>
  );
}

function ByTag({ figures }: { figures: Figures }) {
  const byTag = Object.entries(figures.by_tag ?? {});
  const names = [...new Set(byTag.flatMap(([, metrics]) => Object.keys(metrics)))];
  const [chosen, setChosen] = useState(names[0] ?? "");
  const rows = byTag.flatMap(([tag, metrics]) => {
    const metric = metrics[chosen];
    return metric ? [{ title: tag, metric }] : [];
  });
  return (
    <section class="stack" aria-labelledby="tags">
      <h2 id="tags">By tag</h2>
      {names.length > 1 && (
        <div class="results-filters">
          <SelectField
            label="Metric"
            value={chosen}
            onChange={setChosen}
            options={names.map((name) => [name, titleOf(name)])}
          />
        </div>
      )}
      <MetricTable caption={`${titleOf(chosen)} by tag`} of="Tag" rows={rows} />
    </section>
  );
}
