import { figure } from "../../format";

/** Seconds as milliseconds below one second, and as seconds above. */
export function milliseconds(seconds: number | undefined): string {
  if (seconds === undefined) return "–";
  return seconds < 1
    ? `${(seconds * 1000).toPrecision(seconds < 0.01 ? 2 : 3).replace(/\.0+$/, "")} ms`
    : `${figure(seconds)} s`;
}
