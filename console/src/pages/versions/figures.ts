/** What was measured of a version: figures whose form nothing else checks. */

import { shareInterval, words } from "../../format";

export interface Metric {
  value: number;
  low?: number;
  high?: number;
  n?: number;
  chance?: number;
}

export interface Evaluation {
  /** "winoground (ds_1)" */
  name: string;
  benchmark: string;
  data: string;
  metrics: Record<string, Metric>;
}

/** The figures of the list. Each column shows one data set, so that its numbers can be compared. */
export const COLUMNS = [
  { title: "GroupMatch", benchmark: "winoground", metric: "group_match" },
  { title: "Group score", benchmark: "winoground", metric: "group_score" },
  { title: "Zero-shot", benchmark: "zero-shot", metric: "acc1" },
  { title: "Image retrieval", benchmark: "retrieval", metric: "image_retrieval_recall@1" },
  { title: "Text retrieval", benchmark: "retrieval", metric: "text_retrieval_recall@1" },
] as const;

export const BENCHMARKS: readonly string[] = [...new Set(COLUMNS.map(({ benchmark }) => benchmark))];

const TITLES: Record<string, string> = {
  group_match: "GroupMatch",
  acc1: "Accuracy",
  acc5: "Accuracy, best five",
  validation_clip: "CLIP’s loss on the validation data",
  validation_alpha: "Share of the way from the base, chosen on the validation data",
  validation_image_to_text: "Right text for an image, share within validation batches",
  validation_text_to_image: "Right image for a text, share within validation batches",
};

export function metricTitle(name: string): string {
  if (TITLES[name]) return TITLES[name];
  const ofBase = name.startsWith("base_") && TITLES[name.slice("base_".length)];
  if (ofBase) return `${ofBase}, before the training`;
  return words(name).replace(" recall@", ", recall@");
}

/** The benchmark and the data set of "winoground (ds_1)". */
export function partsOf(name: string): { benchmark: string; data: string } {
  const [, benchmark = name, data = ""] = /^(\S+) \((.*)\)$/.exec(name) ?? [];
  return { benchmark, data };
}

/** The evaluations of a version. What is not one is left out. */
export function evaluationsOf(found: Record<string, unknown> | null | undefined): Evaluation[] {
  return Object.entries(found ?? {}).flatMap(([name, value]) => {
    const metrics = metricsOf(isRecord(value) ? value.metrics : undefined);
    return Object.keys(metrics).length ? [{ name, ...partsOf(name), metrics }] : [];
  });
}

function metricsOf(found: unknown): Record<string, Metric> {
  if (!isRecord(found)) return {};
  const metrics = Object.entries(found).map(([name, value]): [string, unknown] => [
    name,
    typeof value === "number" ? { value } : value,
  ]);
  return Object.fromEntries(metrics.filter((entry): entry is [string, Metric] => isMetric(entry[1])));
}

/** The data sets on which a benchmark was run, the most frequent first. */
export function dataSetsOf(versions: Iterable<readonly Evaluation[]>, benchmark: string): string[] {
  const times = new Map<string, number>();
  for (const evaluations of versions) {
    for (const each of evaluations) {
      if (each.benchmark === benchmark) times.set(each.data, (times.get(each.data) ?? 0) + 1);
    }
  }
  return [...times].sort((one, other) => other[1] - one[1]).map(([data]) => data);
}

/** Whether a figure of the training is a share of right answers. Others are losses and the like. */
export function isShare(name: string): boolean {
  return /_(image_to_text|text_to_image)$/.test(name);
}

/** "36.4 to 46.1 %, n = 400" */
export function interval({ low, high, n }: Metric): string {
  const range = low !== undefined && high !== undefined && shareInterval(low, high);
  return [range, n !== undefined && `n = ${n.toLocaleString("en")}`].filter(Boolean).join(", ");
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isMetric(value: unknown): value is Metric {
  return isRecord(value) && typeof value.value === "number" && Number.isFinite(value.value);
}
