export interface Points {
  /** Increasing. */
  xs: readonly number[];
  /** One for each x. */
  ys: readonly (number | null)[];
}

export interface Point {
  x: number;
  y: number | null;
}

/** The point that is nearest to an x, or the last one. */
export function pointAt({ xs, ys }: Points, at: number | undefined): Point | undefined {
  const place = at === undefined ? xs.length - 1 : nearest(xs, at);
  const [x, y] = [xs[place], ys[place]];
  return x === undefined || y === undefined ? undefined : { x, y };
}

/** The points of a part of the horizontal axis. */
export function within({ xs, ys }: Points, range: readonly [number, number] | undefined): Points {
  if (!range) return { xs, ys };
  const first = firstFrom(xs, range[0]);
  const beyond = xs.findIndex((x) => x > range[1]);
  const end = beyond < 0 ? xs.length : beyond;
  return { xs: xs.slice(first, end), ys: ys.slice(first, end) };
}

/** How high the line between two points is at an x. Undefined before the first point, after the last one and in a gap. */
export function heightAt({ xs, ys }: Points, at: number): number | undefined {
  const next = firstFrom(xs, at);
  const [x, y] = [xs[next], ys[next]];
  if (x === undefined || y == null) return undefined;
  if (x === at) return y;
  const [x0, y0] = [xs[next - 1], ys[next - 1]];
  return x0 === undefined || y0 == null ? undefined : y0 + ((y - y0) * (at - x0)) / (x - x0);
}

function nearest(xs: readonly number[], at: number): number {
  const next = firstFrom(xs, at);
  const [before, after] = [xs[next - 1], xs[next]];
  if (after === undefined) return xs.length - 1;
  return before !== undefined && at - before < after - at ? next - 1 : next;
}

/** The place of the first x that is not below a number. */
function firstFrom(xs: readonly number[], least: number): number {
  let [low, high] = [0, xs.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((xs[middle] as number) < least) low = middle + 1;
    else high = middle;
  }
  return low;
}
