/** What jobs have measured. */

import type { Schemas } from "../../api/client";
import { shortId } from "../../format";
import { address } from "../../router";
import { partsOf } from "../versions/figures";
import { type Filters, type Right, resultAddress } from "./filters";

type Evaluate = Schemas["EvaluateJobInfo"];

/** What a job has measured of one model on one data set: an evaluation, or a part of a fine-tuning job. */
export interface Evaluation
  extends Pick<Evaluate, "id" | "name" | "status" | "finished_at" | "report" | "result">,
    Pick<Evaluate, "model" | "scorer" | "teacher" | "benchmark" | "data" | "baseline"> {
  /** The name in the result of the fine-tuning job. An evaluation measures one thing, and has none. */
  on?: string;
}

/** What a job has measured. A fine-tuning job measures the version that it makes on each benchmark it was given. */
export function measuredBy(job: Schemas["JobInfo"]): Evaluation[] {
  if (job.kind === "evaluate") return [job];
  const { evaluations = {}, promotion } = (job.result ?? {}) as {
    evaluations?: Record<string, Evaluation["result"]>;
    promotion?: { compared_with?: string | null } | null;
  };
  return Object.entries(evaluations).map(([on, result]) => ({
    ...job,
    ...partsOf(on),
    on,
    result,
    model: job.result_version,
    scorer: "clip",
    teacher: null,
    baseline: promotion?.compared_with ?? null,
  }));
}

/** What tells one from all others. */
export const keyOf = ({ id, on = "" }: Evaluation) => `${id} ${on}`;

/** The address of its page, or of its comparison with another one. */
export function addressOf({ id, on }: Evaluation, other?: string | null, filters: Filters = {}): string {
  return resultAddress(id, other, { ...filters, ...(on && { on }) });
}

/** The form that measures another model on the same data. */
export function anotherAddress({ id, on, data }: Evaluation): string {
  return `${address(["new"], { kind: "evaluate", ...(on ? { data } : { from: id }) })}&model=`;
}

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
  provenance: { items?: number; items_used?: number; data_hash?: string };
  baseline?: object;
}

/** The results of an evaluation that has succeeded. */
export function figuresOf(job: Evaluation): Figures | undefined {
  const result = job.result as Figures | null;
  return result?.metrics?.[result.primary] && result;
}

/** The metric that two models are compared by. */
export function mainOf(job: Evaluation): Metric | undefined {
  const figures = figuresOf(job);
  return figures?.metrics[figures.primary];
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
  if (job.name && !job.on) return job.name;
  return `${job.name || shortId(modelOf(job))} on ${job.benchmark}`;
}

/** Whether two evaluations measured the same data in the same way, as far as their jobs tell. */
export function isComparable(one: Evaluation, other: Evaluation): boolean {
  return keyOf(one) !== keyOf(other) && one.benchmark === other.benchmark && one.data === other.data;
}

/** What the service compares: the first of `measured`, or the one named `on`, that the other job has measured too. */
export function pairOf(
  measured: readonly Evaluation[],
  others: readonly Evaluation[],
  on: string | undefined,
): { after?: Evaluation; before?: Evaluation } {
  const own = measured.filter((each) => on === undefined || each.on === on);
  const hash = (of: Evaluation) => figuresOf(of)?.provenance.data_hash;
  for (const after of own) {
    const before = others.find((each) => each.benchmark === after.benchmark && hash(each) === hash(after));
    if (before) return { after, before };
  }
  return { ...(own[0] && { after: own[0] }), ...(others[0] && { before: others[0] }) };
}
