/** What the page remembers of the service since it was opened: one point for each reading of /metrics. */

import { increases, of, quantile, type Reading, type Sample, sum } from "../../api/prometheus";

export interface Point {
  /** When it was read, in seconds. */
  at: number;
  perS: number | undefined;
  p50: number | undefined;
  p95: number | undefined;
  p99: number | undefined;
  images: number | undefined;
  texts: number | undefined;
  queued: number | undefined;
  admitted: number | undefined;
  memory: number | undefined;
  decoding: number | undefined;
}

export interface RouteFigures {
  route: string;
  requests: number;
  p50: number | undefined;
  p95: number | undefined;
  p99: number | undefined;
  /** The share of answers with a status of 500 or above. */
  failed: number;
}

export interface Read {
  at: number;
  reading: Reading;
}

export interface History {
  points: readonly Point[];
  /** The readings of the last minute, of the process that answered last. */
  recent: readonly Read[];
}

export const NOTHING: History = { points: [], recent: [] };
export const EVERY_S = 2;

const MOST_POINTS = 300;
const RECENT_S = 60;
/** A longer pause is a gap in the lines: the page was hidden, or the service away. */
const LONGEST_PAUSE_S = 3 * EVERY_S;
/** Probes, and what only the console asks: its files, who is signed in, and what this page reads. */
const OWN = new Set("/ /assets/{name} /session /health /ready /metrics /models/status /workers".split(" "));
const INFERENCE = new Set([
  "/match",
  "/match/compare",
  "/classify",
  "/classify/compare",
  "/embed",
  "/v1/embeddings",
  "/v2/embed",
]);

const counts = ({ route = "" }: Sample["labels"]) => !OWN.has(route);
const infers = ({ route = "" }: Sample["labels"]) => INFERENCE.has(route);

/** The history with one more reading. Another process, as after a restart, has figures of its own. */
export function extended(history: History, next: Read): History {
  const last = history.recent.at(-1);
  const goesOn = last !== undefined && processOf(last.reading) === processOf(next.reading);
  const point = pointOf(goesOn && next.at - last.at <= LONGEST_PAUSE_S ? last : undefined, next);
  const gap =
    last !== undefined && next.at - last.at > LONGEST_PAUSE_S ? [empty((last.at + next.at) / 2)] : [];
  const recent = [...(goesOn ? history.recent : []), next].filter(({ at }) => next.at - at <= RECENT_S);
  return { points: [...history.points, ...gap, point].slice(-MOST_POINTS), recent };
}

/** The routes that were asked since the page was opened, but at most within the last minute. */
export function recentRoutes({ recent }: History): RouteFigures[] {
  const [first, last] = [recent[0], recent.at(-1)];
  return first && last ? routesOf(increases(first.reading, last.reading)) : [];
}

/** How many requests were answered. */
export function requestsOf(grown: Reading): number {
  return sum(grown, "sds_clip_requests_total", counts) ?? 0;
}

/** Quantiles of the routes that compute. */
export function latencyOf(grown: Reading) {
  return latency(grown, infers);
}

/** The routes that were asked, the busiest first. A reading that is not a difference counts since the process started. */
export function routesOf(grown: Reading): RouteFigures[] {
  const routes = new Set(
    of(grown, "sds_clip_requests_total", counts).map(({ labels }) => labels.route ?? ""),
  );
  return [...routes]
    .flatMap((route) => {
      const here = (labels: Sample["labels"]) => labels.route === route;
      const requests = sum(grown, "sds_clip_requests_total", here) ?? 0;
      if (!requests) return [];
      const failures = sum(grown, "sds_clip_requests_total", (l) => here(l) && Number(l.status) >= 500) ?? 0;
      return [{ route, requests, failed: failures / requests, ...latency(grown, here) }];
    })
    .sort((a, b) => b.requests - a.requests);
}

/** When the process started, in seconds since the Unix epoch. It tells one process from another. */
export function processOf(reading: Reading): number | undefined {
  return sum(reading, "process_start_time_seconds");
}

function pointOf(before: Read | undefined, { at, reading }: Read): Point {
  const gauges = {
    queued: sum(reading, "sds_clip_queued_items"),
    admitted: sum(reading, "sds_clip_admitted_items"),
    memory: sum(reading, "process_resident_memory_bytes"),
    decoding: sum(reading, "sds_clip_decode_bytes"),
  };
  if (!before) return { ...empty(at), ...gauges };
  const grown = increases(before.reading, reading);
  return {
    at,
    perS: requestsOf(grown) / (at - before.at),
    ...latencyOf(grown),
    images: mean(grown, "image"),
    texts: mean(grown, "text"),
    ...gauges,
  };
}

function latency(grown: Reading, wanted: (labels: Sample["labels"]) => boolean) {
  const buckets = of(grown, "sds_clip_request_seconds_bucket", wanted);
  return { p50: quantile(0.5, buckets), p95: quantile(0.95, buckets), p99: quantile(0.99, buckets) };
}

/** The mean number of items in a batch. */
function mean(grown: Reading, kind: string): number | undefined {
  const here = (labels: Sample["labels"]) => labels.kind === kind;
  const batches = sum(grown, "sds_clip_batch_items_count", here);
  return batches ? (sum(grown, "sds_clip_batch_items_sum", here) ?? 0) / batches : undefined;
}

function empty(at: number): Point {
  const none = undefined;
  const rates = { perS: none, p50: none, p95: none, p99: none, images: none, texts: none };
  return { at, ...rates, queued: none, admitted: none, memory: none, decoding: none };
}
