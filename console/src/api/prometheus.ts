/** The text format of Prometheus: samples, increases of counters between two readings, and quantiles of histograms. */

export interface Sample {
  name: string;
  labels: Readonly<Record<string, string>>;
  value: number;
}

/** The samples of one reading, by their names and labels. */
export type Reading = ReadonlyMap<string, Sample>;

type Wanted = (labels: Sample["labels"]) => boolean;

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

export function parse(text: string): Reading {
  const found = new Map<string, Sample>();
  for (const line of text.split("\n")) {
    const [, name, labels = "", value = ""] = LINE.exec(line) ?? [];
    if (name) found.set(name + labels, { name, labels: parseLabels(labels), value: parseValue(value) });
  }
  return found;
}

/** The sum over the samples of a name, or undefined if there is none. */
export function sum(reading: Reading, name: string, wanted: Wanted = () => true): number | undefined {
  const values = of(reading, name, wanted).map(({ value }) => value);
  return values.length ? values.reduce((total, value) => total + value, 0) : undefined;
}

export function of(reading: Reading, name: string, wanted: Wanted = () => true): Sample[] {
  return [...reading.values()].filter((sample) => sample.name === name && wanted(sample.labels));
}

/**
 * By how much each counter has grown. One that has fallen was reset, as by a restart, and has grown from 0.
 * So has one that did not exist before.
 */
export function increases(before: Reading, after: Reading): Reading {
  const grown = new Map<string, Sample>();
  for (const [key, sample] of after) {
    const start = before.get(key)?.value ?? 0;
    const value = sample.value < start ? sample.value : sample.value - start;
    grown.set(key, { ...sample, value });
  }
  return grown;
}

/**
 * The quantile of a histogram as `histogram_quantile` estimates it: linear within the bucket, and the largest bound if
 * it lies above. The samples are those of `NAME_bucket`, and are summed by bound. Undefined without observations.
 */
export function quantile(share: number, buckets: readonly Sample[]): number | undefined {
  const counts = new Map<number, number>();
  for (const { labels, value } of buckets) {
    const bound = parseValue(labels.le ?? "");
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  const sorted = [...counts].sort(([a], [b]) => a - b);
  const total = sorted.at(-1)?.[1] ?? 0;
  if (!total) return undefined;
  const rank = share * total;
  let [start, below] = [0, 0];
  for (const [bound, count] of sorted) {
    if (count >= rank) {
      return bound === Number.POSITIVE_INFINITY
        ? start
        : start + (bound - start) * (count > below ? (rank - below) / (count - below) : 0);
    }
    [start, below] = [bound, count];
  }
  return start;
}

function parseLabels(text: string): Record<string, string> {
  const plain = (value: string) => value.replace(/\\(.)/g, (_, each: string) => (each === "n" ? "\n" : each));
  return Object.fromEntries(
    [...text.matchAll(LABEL)].map(([, name = "", value = ""]) => [name, plain(value)]),
  );
}

function parseValue(text: string): number {
  if (text === "+Inf") return Number.POSITIVE_INFINITY;
  return text === "-Inf" ? Number.NEGATIVE_INFINITY : Number(text);
}
