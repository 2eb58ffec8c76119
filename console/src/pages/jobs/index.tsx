import "./jobs.css";
import type { PageProps } from "..";
import { readFilters } from "./filters";
import { JobPage } from "./Job";
import { JobsList } from "./List";

export function JobsPage({ rest: [id], query }: PageProps) {
  return id === undefined ? (
    <JobsList filters={readFilters(query)} />
  ) : (
    <JobPage key={id} id={id} other={query.get("with") ?? undefined} />
  );
}
