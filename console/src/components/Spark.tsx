import { counted } from "../format";

interface Line {
  name: string;
  series: 1 | 2 | 3 | 4 | 5;
  /** One for each time. A gap is undefined. */
  values: readonly (number | undefined)[];
}

interface Props {
  /** What is drawn, for screen readers. */
  label: string;
  /** Seconds, increasing. */
  times: readonly number[];
  lines: readonly Line[];
  /** How a value is written, for the largest one. */
  write: (value: number) => string;
}

const WIDTH = 300;
const HEIGHT = 60;
/** The least time that the width stands for, in seconds, so that a short history does not look like a long one. */
const LEAST_S = 60;

/** A few lines over time, from 0 to the largest value. That and the time that the width stands for are written above. */
export function Spark({ label, times, lines, write }: Props) {
  const known = lines.flatMap(({ values }) => values.filter((value) => value !== undefined));
  const largest = Math.max(0, ...known);
  const end = times.at(-1) ?? 0;
  const span = Math.max(LEAST_S, end - (times[0] ?? 0));
  const x = (place: number) => WIDTH - ((end - (times[place] ?? 0)) / span) * WIDTH;
  const y = (value: number) => HEIGHT - 1 - (value / (largest || 1)) * (HEIGHT - 2);
  return (
    <figure class="spark">
      <figcaption class="muted small">
        <span>{known.length ? write(largest) : "–"}</span>
        <span>last {counted(Math.ceil(span / 60), "minute")}</span>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={label}>
        <line class="spark-ground" x1="0" x2={WIDTH} y1={HEIGHT - 1} y2={HEIGHT - 1} />
        {lines.map(({ name, series, values }) => (
          <path key={name} class={`spark-line series-${series}`} d={path(values, x, y)} />
        ))}
      </svg>
    </figure>
  );
}

/** A value beside a gap on both sides is a dot, which a line of no length with round ends is. */
export function path(
  values: readonly (number | undefined)[],
  x: (place: number) => number,
  y: (value: number) => number,
): string {
  let drawing = false;
  const parts = values.map((value, place) => {
    if (value === undefined) {
      drawing = false;
      return "";
    }
    const point = `${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
    const part = drawing ? `L${point}` : `M${point}L${point}`;
    drawing = true;
    return part;
  });
  return parts.join("");
}
