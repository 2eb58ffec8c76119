/** What the gate says about a promotion, in words. */

import type { Schemas } from "../../api/client";
import type { Tone } from "../../components/Badge";
import { percent, points, pValue, shortId } from "../../format";
import { partsOf } from "./figures";

type Check = Schemas["GateCheck"];
type Gate = Schemas["GateInfo"];
type Plan = Schemas["PromotionPlan"];
type Dataset = Schemas["DatasetInfo"];
export type Missing = Gate["missing"][number];

/** The gate's word, which the other version follows: "Better than 0a1b2c". */
export const VERDICTS: Record<Gate["verdict"], { word: string; tone: Tone; link: string }> = {
  better: { word: "Better", tone: "good", link: "than" },
  not_better: { word: "Not better", tone: "bad", link: "than" },
  unknown: { word: "Not compared", tone: "warn", link: "with" },
};

/** What a verdict may lack, and the formats of the data that it can be measured on. */
export const MISSING: Record<Missing, { title: string; formats: readonly string[] }> = {
  winoground: { title: "Winoground", formats: ["winoground"] },
  zero_shot_or_retrieval: { title: "zero-shot or retrieval", formats: ["zero-shot", "retrieval"] },
};

/** The newest data sets on which something that is missing can be measured. */
export function fitting(missing: Missing, ready: readonly Dataset[]): Dataset[] {
  return ready.filter(({ format }) => MISSING[missing].formats.includes(format)).slice(0, 3);
}

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
  return points(value);
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

/** A figure that both versions have, with the change in percentage points. */
export function comparedText({ before, after }: Gate["figures"][number]): string {
  return `${percent(before)} → ${percent(after)} (${points(after - before)} points)`;
}

/** The name of a figure that both versions have. */
export function comparedTitle({ figure }: { figure: string }): string {
  return (FIGURES[figure] ?? figure.replaceAll("_", " ")).replace(", change", "");
}

/** What the gate says, with the data sets by their names. Of what is missing, only what the page does not list below. */
export function reasonOf({ why, checks, figures, missing }: Gate, name: (data: string) => string): string {
  if (missing.length) {
    return figures.length
      ? "There is no verdict yet: what was measured of both versions is not enough."
      : "There is no verdict yet: the two versions were not measured on the same data with the same options.";
  }
  const sets = new Set(checks.map(({ on }) => partsOf(on).data).filter(Boolean));
  return [...sets].reduce((text, data) => text.replaceAll(data, name(data)), why);
}

/** Why the request would be refused, in the words of this page. A refusal that it does not know keeps the service's. */
export function refusalOf({ name, error, lock }: Plan): string | undefined {
  if (!error) return undefined;
  if (error.code === "alias_locked" && lock) {
    return `${name} is locked by ${lock.who}: “${lock.why}”. Nothing moves it until it is unlocked.`;
  }
  if (error.code === "not_better") {
    return "The job that made this version compared it and did not promote it. You can promote it all the same if you tick the box for that.";
  }
  return error.message;
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
