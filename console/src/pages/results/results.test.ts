import { expect, test } from "vitest";
import type { Schemas } from "../../api/client";
import { symmetric } from "../../components/Interval";
import { pValue } from "../../format";
import { parse } from "../../router";
import {
  addressOf,
  type Evaluation,
  isComparable,
  keyOf,
  measuredBy,
  nameOf,
  pairOf,
  totalsOf,
} from "./figures";
import { type Filters, readFilters, resultAddress } from "./filters";
import { cells, changeOf, countsOf, differing, type Item, outcomesOf } from "./items";
import { isClear, margin, type PairedDifference, pointsInterval, titleOf, verdict } from "./words";

const item: Item = {
  index: 3,
  object: "job.item",
  id: "3",
  benchmark: "winoground",
  tags: [],
  captions: ["a red dog and a blue cat", "a blue dog and a red cat"],
  images: [],
  outcomes: { text: true, group: false },
  margins: { text: 0.25, group: -0.125 },
  scores: [
    [0.75, 0.5],
    [0.5, 0.375],
  ],
  other: { outcomes: { text: false, group: false }, margins: { text: -0.5, group: -0.5 }, scores: null },
};

function difference(gained: number, lost: number, low: number, high: number): PairedDifference {
  const [both, neither] = [30, 100 - 30 - gained - lost];
  return {
    counts: { both, gained, lost, neither },
    baseline: (both + lost) / 100,
    model: (both + gained) / 100,
    difference: (gained - lost) / 100,
    low,
    high,
    chance: 0.5,
    p_better: 0.01,
    p_two_sided: 0.0213,
  };
}

test("a cell wins its row over the other pictures, and its column over the other captions", () => {
  const found = cells(item.scores ?? []);
  expect(found.map((row) => row.map((cell) => [cell.winsRow, cell.winsColumn, cell.belongs]))).toEqual([
    [
      [true, true, true],
      [false, true, false],
    ],
    [
      [true, false, false],
      [false, false, true],
    ],
  ]);
});

test("of equal scores none wins", () => {
  const first = cells([
    [0.5, 0.5],
    [0.5, 0.25],
  ])[0]?.[0];
  expect([first?.winsRow, first?.winsColumn]).toEqual([false, false]);
});

test("negative scores, as those of the diffusion model, are compared like others", () => {
  const first = cells([
    [-0.5, -0.75],
    [-0.625, -0.5],
  ])[0]?.[0];
  expect([first?.winsRow, first?.winsColumn]).toEqual([true, true]);
});

test("an outcome says how it changed", () => {
  expect(
    outcomesOf(item).map((each) => [each.name, changeOf(each), each.marginBefore, each.marginAfter]),
  ).toEqual([
    ["text", "wrong → right", -0.5, 0.25],
    ["group", "wrong", -0.5, -0.125],
  ]);
  expect(outcomesOf({ ...item, other: null }).map(changeOf)).toEqual(["right", "wrong"]);
});

test("swapped words are found, and a single caption has none", () => {
  const marked = differing(item.captions).map((words) =>
    words.filter((each) => each.differs).map(({ word }) => word),
  );
  expect(marked).toEqual([
    ["red", "blue"],
    ["blue", "red"],
  ]);
  for (const captions of [["a dog"], ["a dog", "a big dog"]]) {
    expect(
      differing(captions)
        .flat()
        .some((each) => each.differs),
    ).toBe(false);
  }
});

test("each choice of a flip knows how many items it shows", () => {
  expect(countsOf({ both: 1, gained: 2, lost: 3, neither: 4 })).toEqual({
    "": 10,
    right_to_wrong: 3,
    wrong_to_right: 2,
    changed: 5,
    same: 5,
  });
});

test("filters come out of the address that they were put into", () => {
  const filters: Filters = { outcome: "group_match", tag: "tag: a&b <i>", flip: "right_to_wrong" };
  const route = parse(resultAddress("job_1", "job 2/x", filters));
  expect([route.page, ...route.rest]).toEqual(["results", "job_1", "vs", "job 2/x"]);
  expect(readFilters(route.query)).toEqual(filters);
});

test("a single evaluation counts its right and wrong items, with a tag and without", () => {
  const metric = { value: 0.3, low: 0.2, high: 0.4, n: 10, ties: 0, outcome: "group" };
  const figures = {
    benchmark: "winoground",
    primary: "group_score",
    outcome: "group",
    metrics: { text_score: { ...metric, outcome: "text" }, group_score: metric },
    by_tag: { Object: { group_score: { ...metric, value: 0.5, n: 4 } } },
    provenance: {},
  };
  expect(totalsOf(figures)).toEqual({ right: 3, wrong: 7, "": 10 });
  expect(totalsOf(figures, "Object")).toEqual({ right: 2, wrong: 2, "": 4 });
  expect(totalsOf(figures, "nothing")).toBeUndefined();
  expect(totalsOf({ ...figures, benchmark: "retrieval" })).toEqual({ right: 3, wrong: 7 });
  expect(readFilters(parse(resultAddress("a", undefined, { right: "wrong" })).query)).toEqual({
    right: "wrong",
  });
});

/** What a fine-tuning job has measured on data by their hashes. */
function trained(id: string, ...hashes: string[]): Evaluation[] {
  const evaluations = hashes.map((hash) => [
    `winoground (ds_${hash})`,
    { benchmark: "winoground", primary: "acc", metrics: { acc: {} }, provenance: { data_hash: hash } },
  ]);
  const result = { evaluations: Object.fromEntries(evaluations), promotion: { compared_with: "base" } };
  const job = { kind: "finetune", id, name: "first", result_version: "v".repeat(64), result };
  return measuredBy(job as unknown as Schemas["JobInfo"]);
}

test("a fine-tuning job is listed once for each thing that it has measured", () => {
  const [one, other] = trained("job_1", "a", "b");
  expect(one && [one.benchmark, one.data, one.model, one.baseline, nameOf(one)]).toEqual([
    "winoground",
    "ds_a",
    "v".repeat(64),
    "base",
    "first on winoground",
  ]);
  if (!one || !other) throw new Error("it measured two");
  expect(keyOf(one)).not.toBe(keyOf(other));
  expect(addressOf(other, "job_2", { tag: "x" })).toBe(
    "#/results/job_1/vs/job_2?tag=x&on=winoground+%28ds_b%29",
  );
  expect(readFilters(parse(addressOf(other)).query)).toEqual({ on: "winoground (ds_b)" });
  expect([isComparable(one, other), isComparable(one, { ...one, id: "job_2" })]).toEqual([false, true]);
  expect(trained("job_3")).toEqual([]);
});

test("what is shown beside a job is what the service compares it with", () => {
  const [job, control] = [trained("job_1", "a", "b"), trained("job_2", "c", "b")];
  const ons = (on?: string) => {
    const { after, before } = pairOf(job, control, on);
    return [after?.on, before?.on];
  };
  expect(ons()).toEqual(["winoground (ds_b)", "winoground (ds_b)"]);
  expect(ons("winoground (ds_a)")).toEqual(["winoground (ds_a)", "winoground (ds_c)"]);
  expect(pairOf(job, [], undefined)).toEqual({ after: job[0] });
});

test("an address without filters is short, and a flip that there is not is left out", () => {
  expect([resultAddress("a"), resultAddress("a", null), resultAddress("a", "b")]).toEqual([
    "#/results/a",
    "#/results/a/vs",
    "#/results/a/vs/b",
  ]);
  expect(readFilters(new URLSearchParams("flip=sideways&tag="))).toEqual({});
});

test("a clear difference says its direction, its interval, and how many items changed", () => {
  expect(verdict("GroupMatch", difference(20, 5, 0.06, 0.24))).toBe(
    "GroupMatch is 15.0 percentage points higher (95 % interval +6.0 to +24.0). " +
      "Of 100 items, 20 became right and 5 became wrong (p = 0.021).",
  );
  expect(verdict("Group", difference(5, 20, -0.24, -0.06))).toContain(
    "Group is 15.0 percentage points lower",
  );
});

test("a difference whose interval contains 0 is not called higher or lower", () => {
  const unclear = difference(9, 8, -0.07, 0.09);
  expect(isClear(unclear)).toBe(false);
  expect(verdict("Text", unclear)).toContain("Text shows no clear difference: +1.0 percentage points");
});

test("if no item changed, that is not called equal", () => {
  expect(verdict("Text", difference(0, 0, 0, 0))).toBe(
    "Text: none of 100 items changed. This does not show that both are equal.",
  );
});

test("numbers are written as in the report", () => {
  expect([pointsInterval(-0.02, 0.051), pointsInterval(0, 0)]).toEqual(["−2.0 to +5.1", "0.0 to 0.0"]);
  expect([pValue(0.00001), pValue(0.00123), pValue(0.5), pValue(1)]).toEqual([
    "< 0.0001",
    "0.0012",
    "0.50",
    "1.00",
  ]);
  expect([margin(0.012345), margin(-0.5), margin(0)]).toEqual(["+0.0123", "−0.500", "0"]);
  expect([titleOf("group_match"), titleOf("constructor"), titleOf("image_retrieval_recall@5")]).toEqual([
    "GroupMatch",
    "constructor",
    "Image retrieval, recall@5",
  ]);
});

test("the drawing of differences is as wide to the left as to the right, and holds all of them", () => {
  const [least, most] = symmetric([-0.31, 0.12]);
  expect(least).toBe(-most);
  expect(most).toBeCloseTo(0.4);
  expect(symmetric([0, 0])).toEqual([-0.02, 0.02]);
  expect(symmetric([-1, 0.5])).toEqual([-1, 1]);
});
