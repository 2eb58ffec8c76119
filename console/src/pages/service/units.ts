import { figure } from "../../format";

/** A number with so many decimals, whatever it is, so that columns line up and nothing moves. */
export function decimal(value: number | undefined, digits = 1): string {
  return value === undefined ? "–" : value.toFixed(digits);
}

/** Seconds as milliseconds below one second, and as seconds above. */
export function milliseconds(seconds: number | undefined): string {
  if (seconds === undefined) return "–";
  return seconds < 1
    ? `${(seconds * 1000).toPrecision(seconds < 0.01 ? 2 : 3).replace(/\.0+$/, "")} ms`
    : `${figure(seconds)} s`;
}
