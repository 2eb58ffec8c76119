import { api, ask, type Schemas } from "../../api/client";
import { useLoaded } from "../../api/use";
import { StatusBadge } from "../../components/Badge";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { percent } from "../../format";

type Job = Schemas["JobInfo"];

const COLUMNS: Column<Job>[] = [
  { name: "Job", cell: (job) => job.name || job.id },
  { name: "Kind", cell: (job) => job.kind },
  { name: "Status", cell: (job) => <StatusBadge status={job.status} /> },
  { name: "Done", number: true, cell: (job) => percent(job.progress.share, 0) },
  { name: "Created", cell: (job) => <Time at={job.created_at} /> },
];

export function JobsPage() {
  const jobs = useLoaded(() => ask(api.GET("/jobs")), [], 5);
  return (
    <div class="page">
      <h1>Jobs</h1>
      <ErrorNote error={jobs.error} onRetry={jobs.reload} />
      {!jobs.data ? (
        !jobs.error && <Skeleton lines={8} />
      ) : jobs.data.data.length ? (
        <Table caption="Jobs, newest first" columns={COLUMNS} rows={jobs.data.data} keyOf={(job) => job.id} />
      ) : (
        <EmptyState title="There are no jobs yet.">
          <code>sds-clip jobs submit</code> starts one.
        </EmptyState>
      )}
    </div>
  );
}
