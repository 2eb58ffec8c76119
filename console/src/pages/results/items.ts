/** An item's outcomes and scores in the shape in which the page shows them. */

import type { Schemas } from "../../api/client";
import type { Flip } from "./filters";

export type Item = Schemas["ItemInfo"];
export type ItemScores = Schemas["ItemScores"];

export interface Cell {
  value: number;
  /** Whether the caption fits this picture better than every other: the highest of its row. */
  winsRow: boolean;
  /** Whether the picture fits this caption better than every other: the highest of its column. */
  winsColumn: boolean;
  /** Whether the caption belongs to the picture. */
  belongs: boolean;
}

/** The scores as a table of captions by pictures. Of equal scores none wins, because the service counts ties as wrong. */
export function cells(scores: readonly (readonly number[])[]): Cell[][] {
  return scores.map((row, caption) =>
    row.map((value, picture) => ({
      value,
      winsRow: row.every((rival, r) => r === picture || rival < value),
      winsColumn: scores.every((rivals, r) => r === caption || (rivals[picture] ?? -Infinity) < value),
      belongs: caption === picture,
    })),
  );
}

export interface OutcomeChange {
  name: string;
  before: boolean | undefined;
  after: boolean;
  marginBefore: number | undefined;
  marginAfter: number | undefined;
}

/** Every outcome of an item, with that in the other evaluation. */
export function outcomesOf(item: Item): OutcomeChange[] {
  return Object.entries(item.outcomes).map(([name, after]) => ({
    name,
    before: item.other?.outcomes[name],
    after,
    marginBefore: item.other?.margins[name],
    marginAfter: item.margins[name],
  }));
}

/** How an item's outcome changed, in words. */
export function changeOf({ before, after }: OutcomeChange): string {
  const now = after ? "right" : "wrong";
  if (before === undefined || before === after) return now;
  return after ? "wrong → right" : "right → wrong";
}

export interface Word {
  word: string;
  differs: boolean;
}

/** Words that another caption does not have at this place, so that swaps are seen. Only captions of equal length have some. */
export function differing(captions: readonly string[]): Word[][] {
  const words = captions.map((caption) => caption.split(/(\s+)/));
  const alike = new Set(words.map(({ length }) => length)).size === 1;
  return words.map((own) =>
    own.map((word, place) => ({ word, differs: alike && words.some((other) => other[place] !== word) })),
  );
}

/** How many items each choice of a flip shows, given the counts of all of them. */
export function countsOf({
  both,
  gained,
  lost,
  neither,
}: Schemas["PairedCountsInfo"]): Record<Flip | "", number> {
  return {
    "": both + gained + lost + neither,
    right_to_wrong: lost,
    wrong_to_right: gained,
    changed: gained + lost,
    same: both + neither,
  };
}
