import "./jobs.css";
import { may } from "../../api/session";
import { EmptyState } from "../../components/EmptyState";
import type { PageProps } from "..";
import { readFilters } from "./filters";
import { JobPage } from "./Job";
import { JobsList } from "./List";

export function JobsPage({ rest: [id], query }: PageProps) {
  if (!may("train")) {
    return (
      <div class="page">
        <h1>Jobs</h1>
        <EmptyState title="Your key may not see jobs.">
          Ask its administrator for a key with the scope <code>train</code>.
        </EmptyState>
      </div>
    );
  }
  return id === undefined ? (
    <JobsList filters={readFilters(query)} />
  ) : (
    <JobPage key={id} id={id} other={query.get("with") ?? undefined} />
  );
}
