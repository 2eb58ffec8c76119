import type { PageProps } from "..";
import { ComparisonPage } from "./Comparison";
import { EvaluationPage } from "./Evaluation";
import { readFilters } from "./filters";
import { List } from "./List";
import "./results.css";

/**
 * `#/results`, `#/results/JOB`, `#/results/JOB/vs/OTHER`, and `#/results/JOB/vs` for the job's own baseline. Of a
 * fine-tuning job, `?on=` says which of the things that it has measured.
 */
export function ResultsPage({ rest: [job, versus, other], query }: PageProps) {
  const filters = readFilters(query);
  if (!job) return <List />;
  if (versus === "vs") {
    return (
      <ComparisonPage
        key={`${job} ${filters.on} ${other}`}
        id={job}
        other={other ?? null}
        filters={filters}
      />
    );
  }
  return <EvaluationPage key={`${job} ${filters.on}`} id={job} filters={filters} />;
}
