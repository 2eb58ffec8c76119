import { describe, expect, test } from "vitest";
import type { Schemas } from "../../api/client";
import { effectOf, figureTitle, mayGo, ruleOf, shownValue } from "./verdict";

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
    evidence: [],
  },
  ...changes,
});

const refused = (code: string) =>
  plan({ moves: false, error: { type: "conflict", code, message: "No." } as unknown as Plan["error"] });

test.each([
  [check("group_match", "above", 0.125, 0), "GroupMatch, change", "+12.5 points", "above 0"],
  [check("group_match_p", "below", 0.03125, 0.05), "McNemar’s p", "0.031", "below 0.05"],
  [check("group_match_p", "below", 2.666e-40, 0.05), "McNemar’s p", "< 0.0001", "below 0.05"],
  [check("group_score", "at_least", -0.05, 0), "Group score, change", "−5.0 points", "at least 0"],
  [check("score", "at_least", 0, -0.02), "Score, change", "0 points", "at least −2.0"],
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
