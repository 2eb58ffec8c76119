import { EmptyState } from "../../components/EmptyState";

export function ResultsPage() {
  return (
    <div class="page">
      <h1>Results</h1>
      <EmptyState title="Results are in the jobs that measured them.">
        <code>sds-clip jobs show JOB</code> prints those of a job.
      </EmptyState>
    </div>
  );
}
