/** Which items are shown. */

import { type FiltersOf, filtersIn } from "../../filters";
import { address } from "../../router";

const CHOICES = {
  /** Which of the things that a fine-tuning job has measured, by its name in the result. */
  on: "text",
  /** The outcome that flips and the plot by tag look at. Without one, it is that of the main figure. */
  outcome: "text",
  tag: "text",
  /** Without one, every item is shown. */
  flip: ["right_to_wrong", "wrong_to_right", "changed", "same"],
  /** Of a single evaluation. */
  right: ["right", "wrong"],
} as const;

export type Filters = FiltersOf<typeof CHOICES>;
export type Flip = NonNullable<Filters["flip"]>;
export type Right = NonNullable<Filters["right"]>;

export const readFilters = (query: URLSearchParams): Filters => filtersIn(query, CHOICES);

/** The address of an evaluation, or of its comparison with another one or, given null, with its own baseline. */
export function resultAddress(id: string, other?: string | null, filters: Filters = {}): string {
  const versus = other === undefined ? [] : other === null ? ["vs"] : ["vs", other];
  return address(["results", id, ...versus], filters);
}
