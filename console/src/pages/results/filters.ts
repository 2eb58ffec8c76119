/** Which items are shown. The filters stand in the address, so that what one sees can be sent to others. */

import { address } from "../../router";

export type Flip = "right_to_wrong" | "wrong_to_right" | "changed" | "same";

export const FLIPS: readonly Flip[] = ["right_to_wrong", "wrong_to_right", "changed", "same"];

/** Which items of a single evaluation are shown. */
export type Right = "right" | "wrong";

export interface Filters {
  /** Which of the things that a fine-tuning job has measured, by its name in the result. */
  on?: string;
  /** The outcome that flips and the plot by tag look at. Without one, it is that of the main figure. */
  outcome?: string;
  tag?: string;
  /** Without one, every item is shown. */
  flip?: Flip;
  right?: Right;
}

export function readFilters(query: URLSearchParams): Filters {
  const flip = FLIPS.find((each) => each === query.get("flip"));
  const [on, outcome, tag] = [query.get("on"), query.get("outcome"), query.get("tag")];
  const right = (["right", "wrong"] as const).find((each) => each === query.get("right"));
  return {
    ...(on && { on }),
    ...(outcome && { outcome }),
    ...(tag && { tag }),
    ...(flip && { flip }),
    ...(right && { right }),
  };
}

/** The address of an evaluation, or of its comparison with another one or, given null, with its own baseline. */
export function resultAddress(id: string, other?: string | null, filters: Filters = {}): string {
  const versus = other === undefined ? [] : other === null ? ["vs"] : ["vs", other];
  return address(["results", id, ...versus], { ...filters });
}
