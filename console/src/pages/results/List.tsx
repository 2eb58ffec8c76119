import { useNewestDatasets } from "../../api/datasets";
import { usePages } from "../../api/use-pages";
import { Button } from "../../components/Button";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { TwoLines } from "../../components/TwoLines";
import { percent, shareInterval } from "../../format";
import { useKept } from "../../kept";
import { addressOf, anotherAddress, type Evaluation, figuresOf, keyOf, mainOf, nameOf } from "./figures";
import { listEvaluations } from "./load";
import { SHARES_AXIS, ShareInterval } from "./MetricTable";
import { DataName, ModelName } from "./Names";
import { titleOf } from "./words";

const NEW = "#/new?kind=evaluate";

/** What jobs have measured, of which two can be ticked and compared. */
export function List() {
  const evaluations = usePages(listEvaluations, []);
  const datasets = useNewestDatasets();
  const [ticked, setTicked] = useKept<readonly string[]>("results ticked", []);
  const { items } = evaluations;
  const chosen = (items ?? []).filter((job) => ticked.includes(keyOf(job)));
  const toggle = (key: string) =>
    setTicked((before) => (before.includes(key) ? before.filter((each) => each !== key) : [...before, key]));

  const columns: Column<Evaluation>[] = [
    {
      name: "Compare",
      cell: (job) => (
        <input
          type="checkbox"
          aria-label={`Compare ${nameOf(job)}`}
          checked={ticked.includes(keyOf(job))}
          disabled={chosen.length === 2 && !ticked.includes(keyOf(job))}
          onChange={() => toggle(keyOf(job))}
        />
      ),
    },
    {
      name: "Evaluation",
      cell: (job) => (
        <TwoLines class="results-name" below={<ModelName job={job} />}>
          <a href={addressOf(job)}>{nameOf(job)}</a>
        </TwoLines>
      ),
    },
    {
      name: "Main figure",
      number: true,
      cell: (job) => (
        <TwoLines class="results-name" below={titleOf(figuresOf(job)?.primary ?? "–")}>
          {percent(mainOf(job)?.value)}
        </TwoLines>
      ),
    },
    {
      name: "Interval and chance, drawn",
      head: SHARES_AXIS,
      cell: (job) => <ShareInterval of={mainOf(job)} />,
    },
    { name: "95 % interval", number: true, cell: (job) => intervalOf(job) },
    {
      name: "Measured on",
      cell: (job) => (
        <TwoLines class="results-name" below={<DataName job={job} datasets={datasets} />}>
          {job.benchmark}
        </TwoLines>
      ),
    },
    { name: "Finished", cell: (job) => <Time at={job.finished_at} /> },
  ];
  return (
    <div class="page">
      <h1>Results</h1>
      {items?.length ? (
        <>
          <CompareBar chosen={chosen} listed={items} />
          <Table
            caption="Evaluations, newest first"
            columns={items.length > 1 ? columns : columns.slice(1)}
            rows={items}
            keyOf={keyOf}
          />
          <p class="small muted">The bar is the 95 % interval, and the dashed line is chance.</p>
        </>
      ) : (
        items &&
        !evaluations.error && (
          <EmptyState title="No evaluation has finished yet.">
            <p>
              An evaluation measures a model on a benchmark, item by item. A fine-tuning job does the same
              with its version, if it is given benchmarks.
            </p>
            <p>
              <a href={NEW}>Start one</a>, or <a href="#/jobs?kind=evaluate">see what is under way</a>.
            </p>
          </EmptyState>
        )
      )}
      {!items && !evaluations.error && <Skeleton lines={8} />}
      <ErrorNote error={evaluations.error} onRetry={evaluations.more} />
      {evaluations.hasMore && !evaluations.error && (
        <p>
          <Button busy={evaluations.loading} onClick={evaluations.more}>
            Show more
          </Button>
        </p>
      )}
    </div>
  );
}

function CompareBar({ chosen, listed }: { chosen: readonly Evaluation[]; listed: readonly Evaluation[] }) {
  const [only] = listed;
  if (only && listed.length === 1) {
    return (
      <p class="muted">
        To compare, <a href={anotherAddress(only)}>measure another model on the same data</a>.
      </p>
    );
  }
  const [before, after] = [...chosen].sort((one, other) => (one.finished_at ?? 0) - (other.finished_at ?? 0));
  const compare = () => {
    if (before && after) location.hash = addressOf(after, before.id);
  };
  return (
    <div class="row">
      <Button look="primary" disabled={!after} onClick={compare}>
        Compare
      </Button>
      <span class="muted">
        {before && after
          ? `${nameOf(before)} (before) and ${nameOf(after)} (after)`
          : before
            ? `${nameOf(before)}, and one more on the same data`
            : "Tick two of the same data."}
      </span>
    </div>
  );
}

function intervalOf(job: Evaluation): string {
  const main = mainOf(job);
  return shareInterval(main?.low, main?.high);
}
