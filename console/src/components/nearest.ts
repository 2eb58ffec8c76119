interface Points {
  /** Increasing. */
  xs: readonly number[];
  /** One for each x. */
  ys: readonly (number | null)[];
}

/** The value of the point that is nearest to an x, or the last one. */
export function valueAt({ xs, ys }: Points, at: number | undefined): number | null | undefined {
  if (at === undefined) return ys.at(-1);
  let [low, high] = [0, xs.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((xs[middle] as number) < at) low = middle + 1;
    else high = middle;
  }
  const before = xs[low - 1];
  const isNearer = before !== undefined && at - before < (xs[low] as number) - at;
  return ys[isNearer ? low - 1 : low];
}
