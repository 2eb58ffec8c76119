import { expect, test } from "vitest";
import { increases, of, parse, quantile, sum } from "./prometheus";

const TEXT = `# HELP requests_total The number of answers.
# TYPE requests_total counter
requests_total{route="/match",status="200"} 40.0
requests_total{route="/match",status="500"} 2.0
requests_total{route="/a\\"b\\\\c\\nd}, e=",status="200"} 1.0
queued 3
seconds_bucket{le="0.5",route="/match"} 4.0
seconds_bucket{le="+Inf",route="/match"} 5.0
size_bytes 1.5e+09
`;

test("samples have names, labels and values, and comments are passed over", () => {
  const reading = parse(TEXT);
  expect(sum(reading, "requests_total", ({ route }) => route === "/match")).toBe(42);
  expect(sum(reading, "queued")).toBe(3);
  expect(sum(reading, "size_bytes")).toBe(1.5e9);
  expect(sum(reading, "absent")).toBeUndefined();
  expect(of(reading, "requests_total").map(({ labels }) => labels.route)).toContain('/a"b\\c\nd}, e=');
  expect(of(reading, "seconds_bucket").map(({ labels }) => labels.le)).toEqual(["0.5", "+Inf"]);
});

test("a counter grows by the difference, from 0 after a reset, and from 0 when it is new", () => {
  const before = parse('n_total{a="1"} 10\nn_total{a="2"} 10\n');
  const after = parse('n_total{a="1"} 12\nn_total{a="2"} 3\nn_total{a="3"} 4\n');
  expect([...increases(before, after).values()].map(({ value }) => value)).toEqual([2, 3, 4]);
});

const histogram = (counts: Record<string, number>) =>
  Object.entries(counts).map(([le, value]) => ({ name: "s_bucket", labels: { le }, value }));

// The values are those of Prometheus for the same buckets:
// histogram_quantile(q, s_bucket), in `promtool test rules`.
test.each([
  [0.5, { "0.1": 0, "0.2": 10, "+Inf": 10 }, 0.15],
  [0.95, { "0.1": 50, "0.5": 90, "1": 100, "+Inf": 100 }, 0.75],
  [0.5, { "0.1": 50, "0.5": 90, "1": 100, "+Inf": 100 }, 0.1],
  [0.25, { "0.1": 50, "0.5": 90, "1": 100, "+Inf": 100 }, 0.05],
  [0.99, { "1": 90, "+Inf": 100 }, 1],
  [0.5, { "1": 0, "+Inf": 0 }, undefined],
])("the quantile %d of %j is %d", (share, counts, expected) => {
  const found = quantile(share, histogram(counts));
  if (expected === undefined) expect(found).toBeUndefined();
  else expect(found).toBeCloseTo(expected, 12);
});

test("the buckets of several series are summed", () => {
  const both = [...histogram({ "1": 0, "2": 4, "+Inf": 4 }), ...histogram({ "1": 4, "2": 4, "+Inf": 4 })];
  expect(quantile(0.75, both)).toBeCloseTo(1.5, 12);
  expect(quantile(0.5, [])).toBeUndefined();
});
