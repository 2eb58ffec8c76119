import { type Datasets, useNewestDatasets } from "../../api/datasets";
import { StatusBadge } from "../../components/Badge";
import { Bar } from "../../components/Bar";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Choice, Typed } from "../../components/Filters";
import { Reconnecting } from "../../components/Reconnecting";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { TwoLines } from "../../components/TwoLines";
import { duration, percent, points } from "../../format";
import { address } from "../../router";
import { useNow } from "../../use-now";
import { addressOf, type Filters, refined } from "./filters";
import { type Job, KINDS, STATUSES, titleOf } from "./job";
import { timeLeft } from "./progress";
import { useJobList } from "./useJobList";
import { brief, figureTitle } from "./words";

export function JobsList({ filters }: { filters: Filters }) {
  const { page, error, reload, lost, waiting } = useJobList(filters);
  const datasets = useNewestDatasets();
  const now = useNow();
  const isFiltered = Object.keys(filters).length > 0;
  return (
    <div class="page">
      <div class="row apart">
        <h1>Jobs</h1>
        <Reconnecting lost={lost} />
        <a class="button primary" href="#/new">
          New job
        </a>
      </div>
      <FilterRow filters={filters} />
      {!lost && <ErrorNote error={error} onRetry={reload} />}
      {!page ? (
        !error && <Skeleton lines={10} />
      ) : page.data.length ? (
        <div class="stack" aria-busy={waiting}>
          <Table
            caption="Jobs, newest first"
            columns={columns(datasets, now)}
            rows={page.data}
            keyOf={(job) => job.id}
          />
          <nav class="row" aria-label="Pages of the list">
            {filters.after && <a href={addressOf(refined(filters, {}))}>Newest jobs</a>}
            {page.has_more && (
              <a href={addressOf({ ...filters, after: page.data.at(-1)?.id ?? "" })}>Older jobs</a>
            )}
          </nav>
        </div>
      ) : isFiltered ? (
        <EmptyState title="No job fits these filters.">
          <a href="#/jobs">Show all jobs.</a>
        </EmptyState>
      ) : (
        <EmptyState title="There are no jobs yet.">
          <p>
            A job fine-tunes a model, or measures one. <a href="#/new">Start the first one</a>, or send one
            with <code>sds-clip jobs submit</code>.
          </p>
        </EmptyState>
      )}
    </div>
  );
}

function columns(datasets: Datasets, now: number): Column<Job>[] {
  return [
    {
      name: "Job",
      cell: (job) => (
        <TwoLines class="job-name" below={brief(job, datasets)}>
          <a href={address(["jobs", job.id])}>{titleOf(job)}</a>
        </TwoLines>
      ),
    },
    { name: "Kind", cell: (job) => <span class="nowrap">{job.kind}</span> },
    {
      name: "Status",
      cell: (job) => (
        <TwoLines below={job.no_worker && "no worker"}>
          <StatusBadge status={job.status} />
        </TwoLines>
      ),
    },
    { name: "Progress", cell: (job) => <Done job={job} /> },
    { name: "Time left", number: true, cell: (job) => duration(timeLeft(job, now)) },
    { name: "Improvement, points", number: true, cell: (job) => <Gain job={job} /> },
    { name: "Owner", cell: (job) => job.owner || <span class="muted">–</span> },
    { name: "Created", number: true, cell: (job) => <Time at={job.created_at} /> },
  ];
}

function Done({ job }: { job: Job }) {
  const { share } = job.progress;
  return (
    <span class="job-done">
      <Bar share={share ?? 0} />
      <span class="number">{percent(share, 0)}</span>
    </span>
  );
}

/** The difference in percentage points, and what it is of. */
function Gain({ job }: { job: Job }) {
  const gain = job.improvement;
  if (!gain) return <span class="muted">–</span>;
  return (
    <TwoLines
      below={`${figureTitle(gain.metric)}: ${percent(gain.baseline)} before, ${percent(gain.model)} now`}
    >
      {points(gain.difference)}
    </TwoLines>
  );
}

function FilterRow({ filters }: { filters: Filters }) {
  const go = (changes: Parameters<typeof refined>[1]) => {
    location.hash = addressOf(refined(filters, changes));
  };
  return (
    <search class="job-filters">
      <Choice label="Kind" value={filters.kind} of={KINDS} onChange={(kind) => go({ kind })} />
      <Choice label="Status" value={filters.status} of={STATUSES} onChange={(status) => go({ status })} />
      <Typed label="Name begins with" value={filters.name ?? ""} onChange={(name) => go({ name })} />
      <Typed label="Owner" value={filters.owner ?? ""} onChange={(owner) => go({ owner })} />
    </search>
  );
}
