import { EmptyState } from "../../components/EmptyState";

export function NewJobPage() {
  return (
    <div class="page">
      <h1>New job</h1>
      <EmptyState title="Jobs are submitted from the command line or by the API.">
        <code>sds-clip jobs submit --config run.yaml</code> submits one, and <a href="docs">the API</a> does
        with <code>POST /finetune</code>.
      </EmptyState>
    </div>
  );
}
