import { describe, expect, test } from "vitest";
import type { Schemas } from "../../api/client";
import {
  comparedText,
  comparedTitle,
  effectOf,
  figureTitle,
  fitting,
  mayGo,
  reasonOf,
  refusalOf,
  ruleOf,
  shownValue,
} from "./verdict";

type Check = Schemas["GateCheck"];
type Plan = Schemas["PromotionPlan"];

const check = (figure: string, rule: Check["rule"], value: number, limit: number): Check => ({
  on: "winoground (ds_1)",
  figure,
  rule,
  value,
  limit,
  passed: true,
});

const plan = (changes: Partial<Plan>): Plan => ({
  object: "dry_run",
  name: "default",
  from_version: "a".repeat(64),
  to_version: "b".repeat(64),
  from_generation: 1,
  generation: 2,
  moves: true,
  error: null,
  lock: null,
  gate: {
    verdict: "unknown",
    why: "",
    compared_with: null,
    thresholds: { max_p: 0.05, max_loss: 0.02 },
    checks: [],
    figures: [],
    missing: [],
    evidence: [],
  },
  ...changes,
});

const refused = (code: string) =>
  plan({ moves: false, error: { type: "conflict", code, message: "No." } as unknown as Plan["error"] });

test.each([
  [check("group_match", "above", 0.125, 0), "GroupMatch, change", "+12.5 points", "above 0.0"],
  [check("group_match_p", "below", 0.03125, 0.05), "McNemar’s p", "0.031", "below 0.05"],
  [check("group_match_p", "below", 2.666e-40, 0.05), "McNemar’s p", "< 0.0001", "below 0.05"],
  [check("group_score", "at_least", -0.05, 0), "Group score, change", "−5.0 points", "at least 0.0"],
  [check("score", "at_least", 0, -0.02), "Score, change", "0.0 points", "at least −2.0"],
])("a condition is put in words", (each, title, value, rule) => {
  expect([figureTitle(each), shownValue(each), ruleOf(each)]).toEqual([title, value, rule]);
});

describe("what a promotion would do", () => {
  test("is told with both versions", () => {
    expect(effectOf(plan({}))).toBe("default would move from aaaaaaaaaaaa to bbbbbbbbbbbb.");
    expect(effectOf(plan({ from_version: null, name: "new" }))).toBe(
      "The new alias new would point to bbbbbbbbbbbb.",
    );
    expect(effectOf(plan({ from_version: "b".repeat(64), moves: false }))).toBe(
      "default points to this version already.",
    );
    expect(effectOf(refused("alias_locked"))).toBe("Nothing would move.");
  });

  test("needs force only where the version's own job found it no better", () => {
    expect([mayGo(undefined, true), mayGo(plan({}), false)]).toEqual([false, true]);
    expect([mayGo(refused("not_better"), false), mayGo(refused("not_better"), true)]).toEqual([false, true]);
    expect(mayGo(refused("alias_locked"), true)).toBe(false);
    expect(mayGo(plan({ moves: false }), false)).toBe(false);
  });
});

describe("what the gate lacks", () => {
  const figure = { on: "winoground (ds_1)", figure: "group_match", before: 0.5, after: 0.625 };
  const gate = (changes: Partial<Plan["gate"]>) => ({ ...plan({}).gate, ...changes });

  test("is told in the words of the page, beside what exists", () => {
    const found = gate({ why: "POST /evaluate", figures: [figure], missing: ["zero_shot_or_retrieval"] });
    expect(reasonOf(found, (data) => data)).toBe(
      "There is no verdict yet: what was measured of both versions is not enough.",
    );
    expect(reasonOf({ ...found, figures: [] }, (data) => data)).toContain(
      "were not measured on the same data",
    );
    expect([comparedTitle(figure), comparedText(figure)]).toEqual([
      "GroupMatch",
      "50.0 % → 62.5 % (+12.5 points)",
    ]);
  });

  test("is measured on data of a format that fits", () => {
    const sets = ["pairs", "retrieval", "winoground", "zero-shot"].map(
      (format) => ({ id: format, format }) as Schemas["DatasetInfo"],
    );
    expect(fitting("zero_shot_or_retrieval", sets).map(({ id }) => id)).toEqual(["retrieval", "zero-shot"]);
    expect(fitting("winoground", sets).map(({ id }) => id)).toEqual(["winoground"]);
  });

  test("is no reason to leave out the service's own, in which data sets have their names", () => {
    const found = gate({
      verdict: "better",
      why: "It is better on winoground (ds_1).",
      checks: [check("group_match", "above", 0.1, 0)],
    });
    expect(reasonOf(found, () => "colours")).toBe("It is better on winoground (colours).");
  });
});

test("a refusal points to what the page offers, and not to the API", () => {
  const lock = { who: "root", why: "a freeze", at: 0 };
  expect(refusalOf({ ...refused("alias_locked"), lock })).toBe(
    "default is locked by root: “a freeze”. Nothing moves it until it is unlocked.",
  );
  expect(refusalOf(refused("not_better"))).toContain("tick the box");
  expect([refusalOf(refused("missing_scope")), refusalOf(plan({}))]).toEqual(["No.", undefined]);
});
