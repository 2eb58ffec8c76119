import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import "./chart.css";
import { compact, count, figure } from "../format";
import { heightAt, pointAt, within } from "./nearest";

export interface Line {
  name: string;
  /** Which of the five colours for the colour-blind. */
  series: 1 | 2 | 3 | 4 | 5;
  /** Lines are told apart by their dashes too. */
  dash?: readonly number[];
  /** A line that only stands behind another one has no place in the legend. */
  faint?: boolean;
  /** Increasing. */
  xs: readonly number[];
  /** One for each x. Null is a gap. */
  ys: readonly (number | null)[];
}

export type Range = readonly [from: number, to: number];

interface Props {
  title: string;
  /** What the title means. */
  note?: string | undefined;
  /** The name of the horizontal axis, for the legend and for screen readers. */
  x: string;
  lines: readonly Line[];
  /** Draw the vertical axis by powers of ten, if no value is negative. */
  log?: boolean;
  /** Where a dashed horizontal line is drawn. */
  mark?: number | undefined;
  /** What is shown of the horizontal axis. Without it, everything is. */
  range?: Range | undefined;
  /** The reader has drawn over a part, or has double-clicked for the whole. */
  onZoom?: (range: Range | undefined) => void;
  /** Charts with the same name share their crosshair. */
  sync?: string;
}

const HEIGHT = 190;
const FONT = "11px Inter, system-ui, sans-serif";
/** Fewer pixels are a click, and not a part that somebody has drawn over. */
const LEAST_DRAG = 4;
/** More space between two values of the axis than the default, as charts are small. */
const SPACE = { x: 56, y: 34 };

/** Lines over steps by uPlot, in the colours of the theme, with a crosshair that reads the values out. */
export function Chart(props: Props) {
  const { title, note, x, lines, log = false } = props;
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const [at, setAt] = useState<number>();
  const newest = useRef(props);
  newest.current = props;

  const isLog = log && lines.every(({ ys }) => ys.every((y) => y === null || y >= 0));
  const data = useMemo(() => joined(lines, isLog), [lines, isLog]);
  const shape = JSON.stringify([
    isLog,
    props.sync,
    lines.map(({ series, dash, faint }) => [series, dash, faint]),
  ]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: new values are drawn by the next effect
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const drawn = new uPlot(options(element, newest, isLog, setAt), data, element);
    plot.current = drawn;
    const resized = new ResizeObserver(() => drawn.setSize({ width: element.clientWidth, height: HEIGHT }));
    resized.observe(element);
    const unwatch = onTheme(() => drawn.redraw(false));
    return () => {
      unwatch();
      resized.disconnect();
      drawn.destroy();
      plot.current = undefined;
    };
  }, [shape]);
  const from = props.range?.[0];
  const to = props.range?.[1];
  // biome-ignore lint/correctness/useExhaustiveDependencies: another range is drawn from the same values
  useEffect(() => plot.current?.setData(data), [data, from, to, props.mark]);

  const named = lines
    .filter(({ faint }) => !faint)
    .map((line): Line => ({ ...line, ...within(line, props.range) }));
  const points = named.map((line) => pointAt(line, at));
  const step = points.find((point) => point !== undefined)?.x;
  return (
    <figure class="card stack close chart">
      <figcaption>
        <h3>{title}</h3>
        <ul class="chart-legend small">
          {named.map((line, place) => (
            <li key={line.name} title={line.name}>
              <svg class={`chart-mark series-${line.series}`} aria-hidden="true">
                <line x1="0" x2="20" y1="50%" y2="50%" stroke-dasharray={line.dash?.join(" ")} />
              </svg>
              <span class="chart-name">{line.name}</span>
              <span class="chart-value">
                {compact(points[place]?.y)}
                {at !== undefined && points[place] && points[place].x !== step && ` at ${points[place].x}`}
              </span>
            </li>
          ))}
        </ul>
      </figcaption>
      <div ref={box} class="chart-box" role="img" aria-label={described(title, x, named)} />
      <p class="chart-foot small muted">
        <span class={at === undefined || step === undefined ? undefined : "chart-away"}>{note}</span>
        {at !== undefined && step !== undefined && <span>{`${x} ${count(step)}`}</span>}
      </p>
    </figure>
  );
}

function options(
  element: HTMLElement,
  newest: { current: Props },
  isLog: boolean,
  onCursor: (x: number | undefined) => void,
): uPlot.Options {
  const colour = (token: string) => () => colourOf(element, token);
  const axis = {
    stroke: colour("--muted"),
    font: FONT,
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
  };
  const { sync } = newest.current;
  return {
    width: element.clientWidth,
    height: HEIGHT,
    padding: [8, 24, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: false, range: (_, min, max) => [...(newest.current.range ?? wide(min, max))] },
      y: { distr: isLog ? 3 : 1, range: (_, min, max) => high(newest.current, isLog, min, max) },
    },
    axes: [
      { ...axis, space: SPACE.x, size: 24, values: (_, splits) => splits.map((at) => whole(at)) },
      {
        ...axis,
        grid: { ...axis.grid, ...(isLog && { filter: powersOfTen }) },
        space: SPACE.y,
        size: 58,
        values: (_, splits) => splits.map((at) => (at === null ? "" : compact(at))),
      },
    ],
    series: [
      {},
      ...newest.current.lines.map(({ series, dash, faint }) => ({
        stroke: colour(`--series-${series}`),
        width: faint ? 1 : 1.75,
        alpha: faint ? 0.35 : 1,
        ...(dash && { dash: [...dash] }),
        points: faint ? { show: false } : { size: 6, fill: colour(`--series-${series}`) },
      })),
    ],
    cursor: {
      y: false,
      // Null hides the mark: a point beyond the part that is shown would be drawn beside the chart.
      dataIdx: (drawn, _, place) => (isShown(drawn.data[0][place], newest.current.range) ? place : null),
      drag: { x: true, y: false, setScale: false },
      ...(sync !== undefined && { sync: { key: sync, setSeries: false } }),
      bind: {
        dblclick: () => () => {
          newest.current.onZoom?.(undefined);
          return null;
        },
      },
    },
    hooks: {
      setCursor: [
        (drawn) => onCursor(inside(drawn) ? drawn.posToVal(drawn.cursor.left as number, "x") : undefined),
      ],
      setSelect: [
        (drawn) => {
          const { left, width } = drawn.select;
          if (width < LEAST_DRAG) return;
          const ends = [drawn.posToVal(left, "x"), drawn.posToVal(left + width, "x")];
          drawn.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          newest.current.onZoom?.([Math.max(0, Math.floor(ends[0] ?? 0)), Math.ceil(ends[1] ?? 0)]);
        },
      ],
      draw: [(drawn) => drawMark(drawn, newest.current.mark, colour("--muted")())],
    },
  };
}

function drawMark(drawn: uPlot, mark: number | undefined, colour: string): void {
  const { min, max } = drawn.scales.y ?? {};
  if (mark === undefined || min == null || max == null || mark < min || mark > max) return;
  const { ctx, bbox } = drawn;
  const y = Math.round(drawn.valToPos(mark, "y", true));
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.setLineDash([2, 4]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}

/** Over many powers of ten, lines between them are only noise. */
function powersOfTen(_: uPlot, splits: number[]): (number | null)[] {
  const decades = Math.log10((splits.at(-1) ?? 1) / (splits[0] ?? 1));
  return splits.map((at) => (decades < 2 || Number.isInteger(Math.log10(at)) ? at : null));
}

const isShown = (x: number | undefined, range: Range | undefined) =>
  x !== undefined && (!range || (range[0] <= x && x <= range[1]));
const inside = (drawn: uPlot) => drawn.cursor.left != null && drawn.cursor.left >= 0;
const whole = (at: number | null) => (at !== null && Number.isInteger(at) ? at.toLocaleString("en") : "");
/** A single point stands in the middle. */
const wide = (min: number, max: number): Range => (min === max ? [min - 1, max + 1] : [min, max]);

/** The vertical axis as uPlot chooses it, with room for the lines that cross the edges of the part that is shown. */
function high({ lines, range }: Props, isLog: boolean, min: number | null, max: number | null) {
  const crossing = (range ?? []).flatMap((x) => lines.map((line) => heightAt(line, x)));
  const shown = [min, max, ...crossing].filter((y): y is number => y != null && !(isLog && y <= 0));
  if (!shown.length) return [null, null] as uPlot.Range.MinMax;
  const [least, greatest] = [Math.min(...shown), Math.max(...shown)];
  return isLog ? uPlot.rangeLog(least, greatest, 10, false) : uPlot.rangeNum(least, greatest, 0.1, true);
}

/** All lines over the same xs. Where a line has no point, it goes on to its next one. */
function joined(lines: readonly Line[], isLog: boolean): uPlot.AlignedData {
  const tables = lines.map(
    ({ xs, ys }) => [[...xs], isLog ? ys.map((y) => (y === 0 ? null : y)) : [...ys]] as uPlot.AlignedData,
  );
  return tables.length
    ? uPlot.join(
        tables,
        tables.map(() => [1, 2]),
      )
    : [[]];
}

function described(title: string, x: string, lines: readonly Line[]): string {
  const last = lines
    .filter(({ xs }) => xs.length)
    .map((line) => `${line.name} ${figure(line.ys.at(-1))} at ${x.toLowerCase()} ${line.xs.at(-1)}`);
  return `${title} by ${x.toLowerCase()}. Last values: ${last.join(", ") || "none"}.`;
}

/** The colour of a token as a canvas takes it: one of the pair for light and dark. */
function colourOf(element: HTMLElement, token: string): string {
  element.style.color = `var(${token})`;
  return getComputedStyle(element).color;
}

function onTheme(redraw: () => void): () => void {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = new MutationObserver(redraw);
  chosen.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  dark.addEventListener("change", redraw);
  return () => {
    chosen.disconnect();
    dark.removeEventListener("change", redraw);
  };
}
