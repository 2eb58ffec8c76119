import { useState } from "preact/hooks";
import { useLoaded } from "../../api/use";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { Tabs } from "../../components/Tabs";
import { address } from "../../router";
import type { PageProps } from "..";
import type { Kind } from "./draft";
import { fits, type Inputs, loadInputs, PAIRS } from "./inputs";
import { JobForm } from "./JobForm";
import "./new.css";

const KINDS: { name: Kind; title: string }[] = [
  { name: "finetune", title: "Fine-tune" },
  { name: "evaluate", title: "Evaluate" },
];

/**
 * `?from=JOB` begins as that job, and with `&model=` as the same evaluation of another model; `?kind=evaluate`, `?data=`, `?model=` and `?baseline=` with these choices.
 */
export function NewJobPage({ query }: PageProps) {
  return (
    <div class="page">
      <h1>New job</h1>
      <Forms key={query.toString()} query={query} />
    </div>
  );
}

function Forms({ query }: { query: URLSearchParams }) {
  const from = query.get("from");
  const inputs = useLoaded(() => loadInputs(from), [from]);
  const [chosen, choose] = useState<Kind>();
  const kind =
    chosen ?? inputs.data?.from?.kind ?? (query.get("kind") === "evaluate" ? "evaluate" : "finetune");
  if (inputs.error) return <ErrorNote error={inputs.error} onRetry={inputs.reload} />;
  if (!inputs.data) return <Skeleton lines={12} />;
  return (
    <Tabs label="Kinds of jobs" tabs={KINDS} current={kind} onChange={choose}>
      <div class="stack">
        {inputs.data.from && (
          <p class="muted">
            With the configuration of{" "}
            <a href={address(["jobs", inputs.data.from.id])}>
              {inputs.data.from.name || inputs.data.from.id}
            </a>
            .
          </p>
        )}
        {from && !inputs.data.from && (
          <p class="warn-note small" role="note">
            There is no job {from} to copy, so the form has none of its entries.{" "}
            <a href="#/jobs">Choose one from the list of jobs.</a>
          </p>
        )}
        {hasData(inputs.data, kind) ? (
          <JobForm key={kind} kind={kind} inputs={inputs.data} query={query} />
        ) : (
          <NoData kind={kind} checking={inputs.data.checking.filter((each) => fits(kind, each))} />
        )}
      </div>
    </Tabs>
  );
}

function NoData({ kind, checking }: { kind: Kind; checking: Inputs["checking"] }) {
  const [verb, content] =
    kind === "finetune" ? ["train", "images with captions"] : ["measure", "a benchmark"];
  if (checking.length) {
    return (
      <EmptyState title={`The data to ${verb} on are still being checked.`}>
        {checking.map(({ id, name }, place) => (
          <>
            {place > 0 && ", "}
            <a href={address(["data", id])}>{name || id}</a>
          </>
        ))}
        . A data set is offered here once its check has passed.
      </EmptyState>
    );
  }
  return (
    <EmptyState title={`There is no data to ${verb} on yet.`}>
      <a href="#/data?add=1">Upload {content}</a>, of the format{" "}
      <code>{kind === "finetune" ? PAIRS : "winoground"}</code>
      {kind === "evaluate" && " or another one"}. The data set is offered here once its check has passed.
    </EmptyState>
  );
}

function hasData({ datasets, from }: Inputs, kind: Kind): boolean {
  return from?.kind === kind || datasets.some((each) => fits(kind, each));
}
