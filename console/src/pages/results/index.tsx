import { may } from "../../api/session";
import { EmptyState } from "../../components/EmptyState";
import type { PageProps } from "..";
import { ComparisonPage } from "./Comparison";
import { EvaluationPage } from "./Evaluation";
import { readFilters } from "./filters";
import { List } from "./List";
import "./results.css";

/** `#/results`, `#/results/JOB`, `#/results/JOB/vs/OTHER`, and `#/results/JOB/vs` for the job's own baseline. */
export function ResultsPage({ rest: [job, versus, other], query }: PageProps) {
  const filters = readFilters(query);
  if (!may("train")) {
    return (
      <div class="page">
        <h1>Results</h1>
        <EmptyState title="Your key does not show results.">
          Sign in with a key that has the scope train.
        </EmptyState>
      </div>
    );
  }
  if (!job) return <List />;
  if (versus === "vs") {
    return <ComparisonPage key={`${job} ${other}`} id={job} other={other ?? null} filters={filters} />;
  }
  return <EvaluationPage key={job} id={job} filters={filters} />;
}
