/** How results are put into words. */

import type { Schemas } from "../../api/client";
import { count, counted, points, pValue } from "../../format";

export type PairedDifference = Schemas["PairedDifferenceInfo"];
/** What the mean over tags has too. */
export type Difference = Omit<PairedDifference, "counts" | "p_better" | "p_two_sided">;

const TITLES: Record<string, string> = {
  text: "Text",
  image: "Image",
  group: "Group",
  text_score: "Text score",
  image_score: "Image score",
  group_score: "Group score",
  group_match: "GroupMatch",
  acc: "Accuracy",
  macro_acc: "Mean over tags",
  acc1: "Accuracy",
  acc5: "Top-5 accuracy",
  mean_per_class_recall: "Mean class recall",
};

/** The name of a metric or an outcome. One that is not known here keeps the service's name. */
export function titleOf(name: string): string {
  const [, found, recall] = /^(image|text)_retrieval_(recall@\d+)$/.exec(name) ?? [];
  if (found) return `${found === "image" ? "Image" : "Text"} retrieval, ${recall}`;
  return (Object.hasOwn(TITLES, name) && TITLES[name]) || name;
}

/** "−2.0 to +5.1", in percentage points. */
export function pointsInterval(low: number, high: number): string {
  return `${points(low)} to ${points(high)}`;
}

/** A difference of scores, with its sign and three digits. */
export function margin(value: number): string {
  if (value === 0) return "0";
  const text = Math.abs(value).toPrecision(3);
  return `${value < 0 ? "−" : "+"}${text.includes("e") ? Number(text) : text}`;
}

/** Whether the interval leaves out 0. */
export function isClear({ low, high }: Difference): boolean {
  return low > 0 || high < 0;
}

/** What the numbers of an outcome say, in a sentence or two. */
export function verdict(title: string, of: PairedDifference): string {
  const { gained, lost, both, neither } = of.counts;
  const all = counted(both + gained + lost + neither, "item");
  if (gained + lost === 0) return `${title}: none of ${all} changed. This does not show that both are equal.`;
  const within = `95 % interval ${pointsInterval(of.low, of.high)}`;
  const size = Math.abs(of.difference * 100).toFixed(1);
  const way = of.difference > 0 ? "higher" : "lower";
  const said = !isClear(of)
    ? `${title} shows no clear difference: ${points(of.difference)} percentage points (${within}).`
    : `${title} is ${size} percentage points ${way} (${within}).`;
  const p = pValue(of.p_two_sided);
  return `${said} Of ${all}, ${count(gained)} became right and ${count(lost)} became wrong (p ${p.startsWith("<") ? p : `= ${p}`}).`;
}
