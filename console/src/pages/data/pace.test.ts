import { expect, test } from "vitest";
import { type Reading, secondsLeft, speedOf, withReading } from "./pace";

const readings = (...pairs: [number, number][]): Reading[] => pairs.map(([atMs, sent]) => ({ atMs, sent }));

test("the speed is that of the last five seconds, and the time left follows from it", () => {
  let kept: Reading[] = [];
  // A megabyte a second for ten seconds, and then a tenth of that.
  for (let second = 0; second <= 10; second++)
    kept = withReading(kept, { atMs: second * 1000, sent: second * 1e6 });
  expect(speedOf(kept)).toBe(1e6);
  for (let second = 11; second <= 15; second++)
    kept = withReading(kept, { atMs: second * 1000, sent: 1e7 + (second - 10) * 1e5 });

  expect(speedOf(kept)).toBe(1e5);
  expect(secondsLeft(kept, 11e6)).toBe(5);
  expect(kept).toHaveLength(6);
});

test("nothing is said in the first second, nor while nothing moves", () => {
  expect(speedOf([])).toBeUndefined();
  expect(speedOf(readings([0, 0], [900, 1e6]))).toBeUndefined();
  expect(secondsLeft(readings([0, 5], [2000, 5]), 10)).toBeUndefined();
});

test("rare readings are all that is known", () => {
  const kept = withReading(withReading(readings([0, 0]), { atMs: 20_000, sent: 2e6 }), {
    atMs: 40_000,
    sent: 4e6,
  });
  expect(speedOf(kept)).toBe(1e5);
  expect(secondsLeft(kept, 4e6)).toBe(0);
});
