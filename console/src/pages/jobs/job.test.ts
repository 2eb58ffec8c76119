import { describe, expect, test } from "vitest";
import { offered, refusal } from "./actions";
import { optionsOf, written } from "./configuration";
import {
  appended,
  type Curves,
  detailed,
  groupsOf,
  hasPoint,
  seriesOf,
  smoothed,
  whyNoRange,
} from "./curves";
import type { Job } from "./job";

function curve(steps: number[], values: (number | null)[]): Curves[string] {
  const last = { step: steps.at(-1) ?? 0, value: values.at(-1) ?? null };
  return { steps, values, count: steps.length, last };
}

test("a moving average begins with the first value, and passes over gaps", () => {
  expect(smoothed([4, null, 8], 0)).toEqual([4, null, 8]);
  const [first, gap, last] = smoothed([4, null, 8], 0.5);
  expect([first, gap]).toEqual([4, null]);
  expect(last).toBeCloseTo((0.25 * 4 + 0.5 * 8) / 0.75);
});

test("points that follow a curve make it longer, and those that it has do not", () => {
  const curves = { loss: curve([1, 2], [5, 4]) };
  const points = [
    { step: 2, values: { loss: 9 } },
    { step: 3, values: { loss: 3, lr: 0.1 } },
    { step: 4, values: { loss: null } },
  ];
  expect(appended(curves, points)).toEqual({
    loss: curve([1, 2, 3, 4], [5, 4, 3, null]),
    lr: curve([3], [0.1]),
  });
  expect(appended(curves, points.slice(0, 1))).toBe(curves);
});

describe("a range of steps", () => {
  const whole = { loss: curve([1, 50, 100], [9, 5, 1]), lr: curve([1, 100], [1, 2]) };

  test("has every detail, and the points around it stay", () => {
    const found = detailed(whole, { loss: curve([48, 49, 50], [7, 6, 5]) }, [48, 60]);
    expect(found.loss?.steps).toEqual([1, 48, 49, 50, 100]);
    expect(found.loss?.values).toEqual([9, 7, 6, 5, 1]);
    expect(found.loss?.last).toEqual(whole.loss.last);
    expect(found.lr).toEqual(whole.lr);
  });

  test("grows with the points that came after it was read", () => {
    const found = detailed(whole, { loss: curve([48, 49], [7, 6]) }, [48, 60]);
    expect(found.loss?.steps).toEqual([1, 48, 49, 50, 100]);
  });

  test("may be without a point, and then all curves are still there", () => {
    expect(detailed(whole, {}, [60, 70])).toEqual(whole);
    expect([hasPoint(whole, [60, 70]), hasPoint(whole, [60, 100])]).toEqual([false, true]);
  });

  test.each([
    ["26", "28", undefined],
    ["", "28", undefined],
    ["28", "26", "Enter a step after 28."],
    ["28", "28", "Enter a step after 28."],
    ["28", "", "Enter the last step to show."],
    ["a", "28", "Enter whole numbers."],
  ])("from %j to %j is refused with the reason", (from, to, why) => expect(whyNoRange(from, to)).toBe(why));
});

test("the residual gap is a share of the residual of the same step, or of the one before", () => {
  const curves = { residual: curve([1, 3, 5], [2, 4, 0]), residual_shuffled: curve([1, 4, 5], [3, 5, 1]) };
  expect(seriesOf(curves, "residual_gap")).toEqual({ steps: [1, 4, 5], values: [0.5, 0.25, null] });
});

test("only figures that were logged have a chart", () => {
  const groups = groupsOf({ loss: curve([1], [2]), lr: curve([1], [0.1]), unknown: curve([1], [1]) });
  expect(groups.map(({ figures }) => figures.map(({ name }) => name))).toEqual([["loss"], ["lr"]]);
});

test.each([
  ["running", ["pause", "cancel"]],
  ["paused", ["resume", "cancel"]],
  ["succeeded", ["retry", "delete"]],
] as const)("a job that is %s offers what can stop or continue it", (status, verbs) =>
  expect(offered(status)).toEqual(verbs),
);

test("what a status does not allow is refused with the reason", () => {
  const running = { status: "running", files_removed_at: null } as const;
  expect(refusal("pause", running)).toBeUndefined();
  expect(refusal("retry", running)).toMatch(/failed or cancelled.*running/);
  expect(refusal("delete", running)).toMatch(/Cancel the job first/);
  expect(refusal("delete", { status: "failed", files_removed_at: 1 })).toMatch(/already/);
});

test("options are marked where they differ from the default, and have none where they must be given", () => {
  const properties = (defaults: Record<string, unknown>) => ({
    properties: Object.fromEntries(
      Object.entries(defaults).map(([name, usual]) => [name, { default: usual }]),
    ),
  });
  const schemas = {
    FinetuneSpec: properties({ base: "default", teacher: null, evaluate: [], seed: 0 }),
    Hyperparameters: properties({ lr: 0.0001, steps: null }),
    Thresholds: properties({ max_p: 0.05 }),
  };
  const job = {
    kind: "finetune",
    base: "default",
    teacher: "demo",
    training_data: "ds_1",
    evaluate: [],
    seed: 0,
    thresholds: { max_p: 0.05 },
    hyperparameters: { lr: 0.0001, steps: 60 },
  } as unknown as Job;
  const options = optionsOf(job, schemas);
  expect(options.filter(({ differs }) => differs).map(({ name }) => name)).toEqual(["teacher", "steps"]);
  expect(options.find(({ name }) => name === "training_data")).toMatchObject({
    value: "ds_1",
    usual: undefined,
  });
});

test("values are written as people read them", () => {
  expect([written(null), written([]), written(0.5), written({ max_p: 0.05 })]).toEqual([
    "–",
    "–",
    "0.5",
    "max_p 0.05",
  ]);
  expect(written([{ benchmark: "winoground", data: "ds_1" }])).toBe("benchmark winoground, data ds_1");
});
