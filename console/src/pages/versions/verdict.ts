/** What the gate says about a promotion, in words. */

import type { Schemas } from "../../api/client";
import type { Tone } from "../../components/Badge";
import { points, pValue, shortId } from "../../format";

type Check = Schemas["GateCheck"];
type Gate = Schemas["GateInfo"];
type Plan = Schemas["PromotionPlan"];

/** The gate's word, which the other version follows: "Better than 0a1b2c". */
export const VERDICTS: Record<Gate["verdict"], { word: string; tone: Tone; link: string }> = {
  better: { word: "Better", tone: "good", link: "than" },
  not_better: { word: "Not better", tone: "bad", link: "than" },
  unknown: { word: "Not compared", tone: "warn", link: "with" },
};

const FIGURES: Record<string, string> = {
  group_match: "GroupMatch, change",
  group_match_p: "McNemar’s p",
  group_score: "Group score, change",
  score: "Score, change",
};

const RULES: Record<Check["rule"], string> = { above: "above", below: "below", at_least: "at least" };

export function figureTitle({ figure }: Check): string {
  return FIGURES[figure] ?? figure.replaceAll("_", " ");
}

/** A p-value as a number, and a change of a score in percentage points. */
function shown(check: Check, value: number): string {
  if (check.figure.endsWith("_p")) return pValue(value);
  return value === 0 ? "0" : points(value);
}

/** "+12.5 points" */
export function shownValue(check: Check): string {
  const text = shown(check, check.value);
  return check.figure.endsWith("_p") ? text : `${text} points`;
}

/** "above 0", "below 0.05", "at least −2.0" */
export function ruleOf(check: Check): string {
  return `${RULES[check.rule]} ${shown(check, check.limit)}`;
}

/** What the request would do, in one sentence. */
export function effectOf(plan: Plan): string {
  const to = shortId(plan.to_version);
  if (plan.error && plan.error.code !== "not_better") return "Nothing would move.";
  if (plan.from_version === null) return `The new alias ${plan.name} would point to ${to}.`;
  if (plan.from_version === plan.to_version) return `${plan.name} points to this version already.`;
  return `${plan.name} would move from ${shortId(plan.from_version)} to ${to}.`;
}

/** Whether the request can be sent. A version that its own job found no better takes an explicit word. */
export function mayGo(plan: Plan | undefined, force: boolean): boolean {
  if (!plan) return false;
  return plan.error ? plan.error.code === "not_better" && force : plan.moves;
}
