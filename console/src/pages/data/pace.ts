/** How fast an upload is, and how long it still takes. */

export interface Reading {
  atMs: number;
  sent: number;
}

/** The speed is the mean over this time, so that the numbers do not jump. */
const WINDOW_MS = 5000;
/** Before, nothing can be said. */
const LEAST_MS = 1000;

/** The readings that the speed is computed from: those within the window, and the last one before it. */
export function withReading(readings: readonly Reading[], next: Reading): Reading[] {
  const all = [...readings, next];
  const first = all.findLastIndex(({ atMs }) => atMs <= next.atMs - WINDOW_MS);
  return all.slice(Math.max(0, first));
}

/** In bytes a second. Undefined until something can be said. */
export function speedOf(readings: readonly Reading[]): number | undefined {
  const [first, last] = [readings[0], readings.at(-1)];
  if (!first || !last || last.atMs - first.atMs < LEAST_MS) return undefined;
  return ((last.sent - first.sent) / (last.atMs - first.atMs)) * 1000;
}

/** In seconds. Undefined until something can be said, and while nothing moves. */
export function secondsLeft(readings: readonly Reading[], total: number): number | undefined {
  const speed = speedOf(readings);
  const sent = readings.at(-1)?.sent ?? 0;
  return speed ? Math.max(0, total - sent) / speed : undefined;
}
