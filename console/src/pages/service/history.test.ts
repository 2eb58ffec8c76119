import { expect, test } from "vitest";
import { parse } from "../../api/prometheus";
import { extended, type History, latencyOf, NOTHING, recentRoutes, requestsOf, routesOf } from "./history";

interface Counts {
  started?: number;
  match?: number;
  failed?: number;
  batches?: number;
}

function reading({ started = 1, match = 0, failed = 0, batches = 0 }: Counts) {
  return parse(`process_start_time_seconds ${started}
process_resident_memory_bytes 1e9
sds_clip_requests_total{route="/match",status="200"} ${match}
sds_clip_requests_total{route="/match",status="500"} ${failed}
sds_clip_requests_total{route="/metrics",status="200"} ${1000 * match}
sds_clip_requests_total{route="/assets/{name}",status="200"} 7
sds_clip_request_seconds_bucket{le="0.1",route="/match"} 0
sds_clip_request_seconds_bucket{le="0.2",route="/match"} ${match}
sds_clip_request_seconds_bucket{le="+Inf",route="/match"} ${match}
sds_clip_batch_items_count{kind="image"} ${batches}
sds_clip_batch_items_sum{kind="image"} ${3 * batches}
sds_clip_queued_items 5
`);
}

function after(...reads: [at: number, counts: Counts][]): History {
  return reads.reduce(
    (history, [at, counts]) => extended(history, { at, reading: reading(counts) }),
    NOTHING,
  );
}

test("a point has rates between two readings, and gauges as they are", () => {
  const { points } = after([0, { match: 10, batches: 1 }], [2, { match: 14, batches: 3 }]);
  expect(points[0]).toMatchObject({ perS: undefined, queued: 5, memory: 1e9 });
  expect(points[1]).toMatchObject({ at: 2, perS: 2, images: 3, queued: 5 });
  expect(points[1]?.p50).toBeCloseTo(0.15);
});

test("a restart is a gap, and no rate", () => {
  const { points } = after([0, { match: 100 }], [2, { match: 3, started: 2 }], [4, { match: 5, started: 2 }]);
  expect(points.map(({ perS }) => perS)).toEqual([undefined, undefined, 1]);
});

test("a pause, as of a hidden page, is a gap", () => {
  const { points } = after([0, { match: 0 }], [100, { match: 50 }], [102, { match: 52 }]);
  expect(points.map(({ at, queued }) => [at, queued])).toEqual([
    [0, 5],
    [50, undefined],
    [100, 5],
    [102, 5],
  ]);
  expect(points.at(-1)?.perS).toBe(1);
});

test("routes have the figures of the last minute at most, and the page's own requests are left out", () => {
  const history = after(
    [0, {}],
    [2, { match: 8, failed: 2 }],
    [100, { match: 100 }],
    [102, { match: 109, failed: 1 }],
  );
  expect(recentRoutes(history)).toMatchObject([{ route: "/match", requests: 10, failed: 0.1 }]);
  expect(recentRoutes(after([0, { match: 3 }]))).toEqual([]);
});

test("the first reading has the figures since the process started", () => {
  const first = reading({ match: 3, failed: 1 });
  expect(routesOf(first)).toMatchObject([{ route: "/match", requests: 4, failed: 0.25 }]);
  expect(routesOf(first)[0]?.p50).toBeCloseTo(0.15);
  expect(requestsOf(first)).toBe(4);
  expect(latencyOf(first).p50).toBeCloseTo(0.15);
});

test("the history has an end", () => {
  const reads = Array.from({ length: 400 }, (_, place): [number, Counts] => [2 * place, { match: place }]);
  const { points, recent } = after(...reads);
  expect([points.length, recent.length]).toEqual([300, 31]);
});
