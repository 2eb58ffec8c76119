import { expect, test } from "vitest";
import { bins, described, isLabelled } from "./histogram";

test("a bin is named by the whole numbers in it, and as high as its share of the largest", () => {
  expect(bins({ edges: [1, 2, 3, 9], counts: [5, 0, 20] })).toEqual([
    { label: "1", count: 5, height: 0.25 },
    { label: "2", count: 0, height: 0 },
    { label: "3–8", count: 20, height: 1 },
  ]);
  expect(
    bins({ edges: [1000, 1500, 2001], counts: [0, 0] }).map(({ label, height }) => [label, height]),
  ).toEqual([
    ["1,000–1,499", 0],
    ["1,500–2,000", 0],
  ]);
});

test("labels stand where there is room, and never beside the last one", () => {
  const labelled = (all: number, room: number) =>
    Array.from({ length: all }, (_, place) => place).filter((place) => isLabelled(place, all, room));
  expect(labelled(5, 6)).toEqual([0, 1, 2, 3, 4]);
  expect(labelled(10, 5)).toEqual([0, 2, 4, 6, 9]);
  expect(labelled(20, 5)).toEqual([0, 4, 8, 12, 19]);
  expect(labelled(1, 5)).toEqual([0]);
});

test("a sentence says the range, and what is most frequent", () => {
  expect(described(bins({ edges: [1, 3, 5, 54], counts: [5, 20, 1] }), "words")).toBe(
    "From 1 to 53 words. Most often 3–4: 20.",
  );
});
