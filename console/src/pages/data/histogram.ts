/** A stored histogram as bins with labels. */

import type { Schemas } from "../../api/client";
import { count } from "../../format";

export interface Bin {
  /** "8", "8–11" */
  label: string;
  count: number;
  /** Of the largest bin, from 0 to 1. */
  height: number;
}

/** The values are whole numbers: `edges[k] <= value < edges[k + 1]`. */
export function bins({ edges, counts }: Schemas["Histogram"]): Bin[] {
  const most = Math.max(...counts, 1);
  return counts.map((number, place) => {
    const [first, last] = [edges[place] ?? 0, (edges[place + 1] ?? 0) - 1];
    return {
      label: last > first ? `${count(first)}–${count(last)}` : count(first),
      count: number,
      height: number / most,
    };
  });
}

/** Whether a bin has its label below it: there is room for so many. The first and the last one always have. */
export function isLabelled(place: number, all: number, room: number): boolean {
  const step = Math.ceil(all / room);
  const last = all - 1;
  return place === last || (place % step === 0 && last - place >= step);
}

/** What the histogram shows, in a sentence, for those who do not see it. */
export function described(found: readonly Bin[], unit: string): string {
  const most = found.find(({ height }) => height === 1);
  const [first, last] = [found[0], found.at(-1)];
  if (!most || !first || !last) return "There are no values.";
  return `From ${first.label.split("–")[0]} to ${last.label.split("–").at(-1)} ${unit}. Most often ${most.label}: ${count(most.count)}.`;
}
