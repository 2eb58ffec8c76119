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
      { name: "negatives", title: "Loss on hard negatives", note: "Without its weight." },
    ],
  },
  {
    title: "Influence of the teacher",
    figures: [
      {
        name: "teacher_gradient_share",
        title: "Gradient share",
        note: "The teacher’s gradient, divided by that of the other losses. Below 0.05, dashed, it hardly matters.",
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
        title: "Residual gap",
        note: "How much the teacher’s error grows with wrong captions. Below 0.01, dashed, it hardly tells them from the right ones.",
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

/** The curves with the points that came after them and are in the range. */
export function appended(curves: Curves, points: readonly Point[], range: Range | undefined): Curves {
  const added = new Map<string, Point[]>();
  for (const point of points) {
    if (range && (point.step < range[0] || point.step > range[1])) continue;
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

export function longest(curves: Curves): number {
  return Math.max(0, ...Object.values(curves).map(({ steps }) => steps.length));
}
