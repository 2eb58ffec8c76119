/** What an evaluation's job says of its results. */

import type { Schemas } from "../../api/client";
import { shortId } from "../../format";
import type { Right } from "./filters";

export type Evaluation = Schemas["EvaluateJobInfo"];

export interface Metric {
  value: number;
  low: number;
  high: number;
  n: number;
  ties: number;
  chance?: number;
  /** The items' outcome that this is a share of. A mean over tags has none. */
  outcome?: string;
  d_prime?: number;
}

export type Metrics = Record<string, Metric>;

export interface Figures {
  benchmark: string;
  /** The name of the metric that two models are compared by. */
  primary: string;
  /** The outcome that it is computed from. */
  outcome: string;
  metrics: Metrics;
  by_tag?: Record<string, Metrics>;
  provenance: { items?: number; items_used?: number };
  baseline?: object;
}

/** The results of an evaluation that has succeeded. */
export function figuresOf(job: Evaluation): Figures | undefined {
  const result = job.result as Figures | null;
  return result?.metrics?.[result.primary] && result;
}

/** The main figure first, then the others in the order of the service. */
export function metricsInOrder({ primary, metrics }: Figures): [string, Metric][] {
  const entries = Object.entries(metrics);
  return [...entries.filter(([name]) => name === primary), ...entries.filter(([name]) => name !== primary)];
}

/** How many items each choice shows. That of all is not known if some items do not have the outcome. */
export type Totals = Partial<Record<Right | "", number>>;

/** The numbers of right and wrong items in the main figure's outcome, of those that have a tag. */
export function totalsOf({ benchmark, outcome, metrics, by_tag }: Figures, tag?: string): Totals | undefined {
  const found = Object.values((tag ? by_tag?.[tag] : metrics) ?? {}).find((each) => each.outcome === outcome);
  if (!found) return undefined;
  const right = Math.round(found.value * found.n);
  // Retrieval looks up texts and images, which have different outcomes.
  return { right, wrong: found.n - right, ...(benchmark !== "retrieval" && { "": found.n }) };
}

/** What was measured: the model, or the teacher by which images are scored. */
export function modelOf(job: Evaluation): string {
  return (job.scorer === "diffusion" ? job.teacher : job.model) ?? "–";
}

export function nameOf(job: Evaluation): string {
  return job.name || `${shortId(modelOf(job))} on ${job.benchmark}`;
}

/** Whether two evaluations measured the same data in the same way, as far as their jobs tell. */
export function isComparable(one: Evaluation, other: Evaluation): boolean {
  return one.id !== other.id && one.benchmark === other.benchmark && one.data === other.data;
}
