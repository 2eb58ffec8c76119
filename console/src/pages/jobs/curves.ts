/** The curves of a job: which are drawn together, how they are smoothed, and how new points join them. */

import type { Schemas } from "../../api/client";
import type { Range } from "../../components/Chart";

export type Curves = Schemas["Curves"]["curves"];
export interface Series {
  steps: readonly number[];
  values: readonly (number | null)[];
}
export interface Point {
  step: number;
  values: Record<string, number | null>;
}

export interface Figure {
  /** The name in the log, or one that is computed here. */
  name: string;
  title: string;
  note?: string;
  mark?: number;
}
export interface Group {
  title: string;
  figures: readonly Figure[];
}

const RESIDUAL_GAP = "residual_gap";

/** In the order of the page. The thresholds are those of the warning `teacher_had_no_say`. */
const GROUPS: readonly Group[] = [
  {
    title: "Losses",
    figures: [
      { name: "loss", title: "Loss", note: "The weighted sum that is minimised." },
      { name: "clip", title: "L_CLIP", note: "CLIP’s own loss on the batch." },
      { name: "sds", title: "L_SDS", note: "Without its weight." },
      { name: "condition", title: "L_condition", note: "Without its weight." },
      { name: "noise_contrast", title: "L_noise", note: "Without its weight." },
      { name: "negatives", title: "Loss on hard negatives", note: "Without its weight." },
    ],
  },
  {
    title: "Influence of the teacher",
    figures: [
      {
        name: "teacher_gradient_share",
        title: "Gradient share of the teacher",
        note: "The length of its gradient, as a multiple of that of the other losses. Below 0.05, dashed, the teacher hardly matters.",
        mark: 0.05,
      },
      {
        name: "teacher_gradient_cosine",
        title: "Cosine of the gradients",
        note: "Below 0, dashed, the losses work against each other.",
        mark: 0,
      },
      {
        name: RESIDUAL_GAP,
        title: "Residual gap of the teacher",
        note: "The share by which its error with wrong captions is above that with the right ones. Below 0.01, dashed, the teacher hardly tells them apart.",
        mark: 0.01,
      },
      { name: "target_own", title: "Probability of the right caption", note: "As the teacher chooses." },
      { name: "target_best", title: "Probability of the best caption", note: "As the teacher chooses." },
    ],
  },
  {
    title: "Optimisation and speed",
    figures: [
      { name: "lr", title: "Learning rate" },
      { name: "gradient_norm", title: "Gradient norm", note: "Before it is clipped." },
      { name: "mapper_gradient_norm", title: "Gradient norm of the mapper", note: "Before it is clipped." },
      { name: "examples_per_s", title: "Pairs per second" },
    ],
  },
];

/** What is measured on the validation data, once before the training and once after it. */
export const VALIDATION: readonly Figure[] = [
  { name: "validation_clip", title: "L_CLIP" },
  { name: "validation_image_to_text", title: "Right text for an image, within batches" },
  { name: "validation_text_to_image", title: "Right image for a text, within batches" },
];

/** The groups and figures of which there is a curve. */
export function groupsOf(curves: Curves): Group[] {
  return GROUPS.map((group) => ({
    ...group,
    figures: group.figures.filter(({ name }) => has(curves, name)),
  })).filter(({ figures }) => figures.length);
}

function has(curves: Curves, name: string): boolean {
  return Boolean(seriesOf(curves, name).steps.length);
}

export function seriesOf(curves: Curves, name: string): Series {
  return name === RESIDUAL_GAP ? residualGap(curves) : (curves[name] ?? { steps: [], values: [] });
}

/** By how much the residual grows with the captions of other samples, as a share of it. */
function residualGap({ residual, residual_shuffled: shuffled }: Curves): Series {
  if (!residual || !shuffled) return { steps: [], values: [] };
  let place = 0;
  const values = shuffled.steps.map((step, at) => {
    // Both curves are thinned on their own, so that one may lack a step of the other.
    while (place + 1 < residual.steps.length && (residual.steps[place + 1] as number) <= step) place += 1;
    const [own, others] = [residual.values[place], shuffled.values[at]];
    return own == null || others == null || own === 0 ? null : (others - own) / own;
  });
  return { steps: shuffled.steps, values };
}

/** The exponential moving average with this weight of what came before. Its beginning is not drawn towards 0. */
export function smoothed(values: readonly (number | null)[], weight: number): (number | null)[] {
  let [sum, mass] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

/** The curves with the points that came after them. */
export function appended(curves: Curves, points: readonly Point[]): Curves {
  const added = new Map<string, Point[]>();
  for (const point of points) {
    for (const name of Object.keys(point.values)) {
      const before = added.get(name)?.at(-1)?.step ?? curves[name]?.last.step ?? -1;
      if (point.step <= before) continue;
      if (added.has(name)) added.get(name)?.push(point);
      else added.set(name, [point]);
    }
  }
  if (!added.size) return curves;
  const grown: Curves = { ...curves };
  for (const [name, news] of added) {
    const [curve, steps] = [curves[name], news.map(({ step }) => step)];
    const values = news.map((point) => point.values[name] ?? null);
    grown[name] = {
      steps: [...(curve?.steps ?? []), ...steps],
      values: [...(curve?.values ?? []), ...values],
      count: (curve?.count ?? 0) + news.length,
      last: { step: steps.at(-1) as number, value: values.at(-1) as number | null },
    };
  }
  return grown;
}

/**
 * The whole curves with what was read again of a range in its place.
 *
 * The points around the range stay, so that the lines which cross its edges are drawn.
 */
export function detailed(whole: Curves, part: Curves | undefined, [from, to]: Range): Curves {
  if (!part) return whole;
  const one = ([name, curve]: [string, Curves[string]]) => {
    const inside = part[name];
    if (!inside) return [name, curve] as const;
    const before = points(curve).filter(({ step }) => step < from);
    const after = points(curve).filter(({ step }) => step > to || step > inside.last.step);
    const all = [...before, ...points(inside), ...after];
    return [
      name,
      { ...curve, steps: all.map(({ step }) => step), values: all.map(({ value }) => value) },
    ] as const;
  };
  return Object.fromEntries(Object.entries(whole).map(one));
}

function points({ steps, values }: Curves[string]) {
  return steps.map((step, place) => ({ step, value: values[place] ?? null }));
}

/** Whether a figure has a point from one step to another. */
export function hasPoint(curves: Curves, [from, to]: Range): boolean {
  return Object.values(curves).some(({ steps }) => steps.some((step) => from <= step && step <= to));
}

/** Why no part can be shown from one step to another, as they were typed. */
export function whyNoRange(from: string, to: string): string | undefined {
  if (!to.trim()) return "Enter the last step to show.";
  const [first, last] = [Number(from), Number(to)];
  if (![first, last].every((step) => Number.isInteger(step) && step >= 0)) return "Enter whole numbers.";
  return first < last ? undefined : `Enter a step after ${first}.`;
}

export function longest(curves: Curves): number {
  return Math.max(0, ...Object.values(curves).map(({ steps }) => steps.length));
}
