import { Fragment } from "preact";

interface IntervalProps {
  value: number;
  low: number;
  high: number;
  /** The values at both ends of the drawing. */
  domain: readonly [number, number];
  /** Where the dashed line stands, such as that of chance or of no difference. */
  line?: number | null | undefined;
  series?: 1 | 2 | 3 | 4 | 5;
  /** Whether the dot is filled. A hollow one says that the interval contains the line. */
  filled?: boolean;
}

/** A value with its interval. The numbers stand beside it, so that the drawing says nothing to screen readers. */
export function Interval({ value, low, high, domain, line, series = 1, filled = true }: IntervalProps) {
  const at = (x: number) => place(x, domain);
  return (
    <svg class={`interval series-${series}`} aria-hidden="true">
      <line class="interval-ground" x1="0" x2="100%" y1="50%" y2="50%" />
      {line != null && <line class="interval-reference" x1={at(line)} x2={at(line)} y1="0" y2="100%" />}
      <line class="interval-span" x1={at(low)} x2={at(high)} y1="50%" y2="50%" />
      {[low, high].map((end, side) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: an interval has two ends
        <rect key={side} class="interval-end" x={at(end)} y="50%" width="2" height="8" />
      ))}
      <circle class={filled ? "interval-filled" : "interval-hollow"} cx={at(value)} cy="50%" r="4.5" />
    </svg>
  );
}

interface AxisProps {
  domain: readonly [number, number];
  /** Three places and what is written there: the left end, somewhere between, and the right end. */
  ticks: readonly (readonly [number, string])[];
}

const ANCHORS = ["start", "middle", "end"] as const;

/** The scale above intervals. */
export function IntervalAxis({ domain, ticks }: AxisProps) {
  return (
    <svg class="interval-axis" aria-hidden="true">
      {ticks.map(([value, text], n) => (
        <Fragment key={value}>
          <text x={place(value, domain)} y="1em" text-anchor={ANCHORS[n] ?? "middle"}>
            {text}
          </text>
          <rect class="interval-tick" x={place(value, domain)} y="100%" width="1" height="4" />
        </Fragment>
      ))}
    </svg>
  );
}

/** The ends of a drawing of differences of shares: equally far from 0, and a little further than any of these values. */
export function symmetric(values: readonly number[]): readonly [number, number] {
  const furthest = Math.max(...values.map(Math.abs), 0);
  const step = furthest > 0.25 ? 0.1 : furthest > 0.1 ? 0.05 : 0.02;
  const end = Math.min(1, Math.max(step, Math.ceil((furthest * 1.02) / step) * step));
  return [-end, end];
}

/** Inside the drawing by the dot's radius, so that no dot is cut off at an end. */
function place(value: number, [least, most]: readonly [number, number]): string {
  const share = Math.min(1, Math.max(0, (value - least) / (most - least)));
  return `${2 + 96 * share}%`;
}
