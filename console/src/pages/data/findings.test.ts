import { expect, test } from "vitest";
import { badOf, type DataSet, grouped, sizeOf, unlisted, verdict } from "./findings";

const set = (rest: Partial<DataSet>): DataSet => ({ status: "ready", max_bad_share: 0, ...rest }) as DataSet;
const problems = (number: number, code = "image_unreadable") =>
  Array.from({ length: number }, (_, place) => ({ code, message: `image ${place}` }));

test("problems are grouped by their codes, in the order in which they were found", () => {
  const found = grouped([
    { code: "missing_file", message: "a.png" },
    { code: "image_unreadable", message: "<b>.png" },
    { code: "missing_file", message: "c.png" },
    { code: "archive_too_large", message: "Send less." },
  ]);
  expect(found).toEqual([
    { code: "missing_file", title: "Missing files", messages: ["a.png", "c.png"] },
    { code: "image_unreadable", title: "Images that cannot be read", messages: ["<b>.png"] },
    { code: "archive_too_large", title: "Archive too large", messages: ["Send less."] },
  ]);
});

test("pairs are counted in samples, and a benchmark in items", () => {
  expect(sizeOf(set({ counts: { samples: 8, usable: 6 } }))).toEqual({ all: 8, one: "sample" });
  expect(sizeOf(set({ counts: { items: 1, usable: 1, images: 2 } }))).toEqual({ all: 1, one: "item" });
  expect(sizeOf(set({ counts: null }))).toBeUndefined();
  expect(badOf(set({ counts: { samples: 8, usable: 6 } }))).toBe(2);
  expect(badOf(set({ counts: { problems: 1 } }))).toBe(0);
});

test.each<[string, Partial<DataSet>]>([
  ["The check found nothing wrong: all 8 samples can be used.", { counts: { samples: 8, usable: 8 } }],
  [
    "2 of 8 samples (25.0 %) cannot be used, and are left out: up to 50.0 % may be unusable.",
    { counts: { samples: 8, usable: 6 }, max_bad_share: 0.5 },
  ],
  [
    "The data set was rejected: 1 of 8 items (12.5 %) cannot be used, and none may be unusable.",
    { status: "rejected", counts: { items: 8, usable: 7, problems: 1 } },
  ],
  [
    "The data set was rejected, and jobs cannot use it. Fix what is listed here, and add it again.",
    { status: "rejected", counts: { problems: 1 } },
  ],
])("the check is one sentence: %s", (sentence, rest) => {
  expect(verdict(set(rest))).toBe(sentence);
});

test("a check that waits is told from one that runs", () => {
  expect(verdict(set({ status: "validating", being_checked: false }))).toContain(
    "as soon as a worker is free",
  );
  expect(verdict(set({ status: "validating", being_checked: true }))).toContain("A worker reads every file");
});

test("a list that does not hold all problems says so", () => {
  expect(unlisted(set({ problems: problems(20), counts: { samples: 9000, usable: 7000 } }))).toBe(
    "These are the first 20 of 2,000 problems.",
  );
  expect(unlisted(set({ problems: problems(20), counts: { problems: 20 } }))).toBeUndefined();
  expect(unlisted(set({ problems: problems(2), counts: { samples: 9, usable: 6 } }))).toBeUndefined();
});
