import { expect, test } from "vitest";
import {
  bodyOf,
  controlOf,
  type Draft,
  draftOf,
  EMPTY,
  isAt,
  isChanged,
  type Job,
  nextName,
  problemsIn,
  proposedName,
  read,
  withControl,
} from "./draft";
import type { FieldSpec } from "./schema";

const field = (
  path: string,
  kind: FieldSpec["kind"],
  initial: FieldSpec["default"],
  optional = false,
): FieldSpec => ({
  path,
  name: path.split(".").at(-1) ?? "",
  kind,
  choices: [],
  limits: {},
  optional,
  required: false,
  default: initial,
  description: "",
  bounds: "",
  section: "",
});

const STEPS = field("hyperparameters.steps", "integer", null, true);
const LR = field("hyperparameters.lr", "number", 0.0001);
const FLAG = field("hyperparameters.activation_checkpointing", "flag", false);
const FIELDS = [
  field("name", "text", null, true),
  field("training_data", "text", null),
  field("teacher", "text", null, true),
  field("objective", "choice", "sds-clip"),
  field("promote", "choice", "never"),
  field("max_run_time_s", "number", null, true),
  STEPS,
  LR,
  FLAG,
  field("thresholds.max_p", "number", 0.05),
];
const draft = (values: Draft["values"], rest: Partial<Draft> = {}): Draft => ({ ...EMPTY, values, ...rest });

test("the request has what differs from the defaults, each at its place", () => {
  const typed = draft(
    {
      training_data: "ds_1",
      objective: "sds-clip",
      "hyperparameters.steps": "200",
      "hyperparameters.lr": "1e-4",
      "hyperparameters.activation_checkpointing": "true",
      name: " ",
    },
    { evaluate: [{ benchmark: "winoground", data: "ds_2" }] },
  );
  expect(bodyOf(FIELDS, typed)).toEqual({
    training_data: "ds_1",
    hyperparameters: { steps: 200, activation_checkpointing: true },
    evaluate: [{ benchmark: "winoground", data: "ds_2" }],
  });
});

test("a field is changed when its value is another one, however it is written", () => {
  const values = (text: string) => ({ "hyperparameters.lr": text });
  expect(["0.0001", "1e-4", "0.00010", "0.0002"].map((text) => isChanged(LR, values(text)))).toEqual([
    false,
    false,
    false,
    true,
  ]);
  expect(isChanged(LR, {})).toBe(false);
});

test("what is no number is left to the service, and nothing is null where that is allowed", () => {
  expect([read(LR, "fast"), read(LR, ""), read(STEPS, ""), read(STEPS, " 20 ")]).toEqual([
    "fast",
    "",
    null,
    20,
  ]);
  expect([read(FLAG, "true"), read(FLAG, "false")]).toEqual([true, false]);
});

const BODY = {
  name: "run",
  teacher: "demo",
  training_data: "ds_1",
  objective: "score",
  promote: "if_better",
  alias: "default",
  thresholds: { max_p: 0.1 },
  seed: 3,
  hyperparameters: { steps: 200, negatives: "swap" },
  evaluate: [{ benchmark: "winoground", data: "ds_2" }],
  metadata: { note: "first" },
};

test("the control is the same run without the teacher, and promotes nothing", () => {
  expect(controlOf(BODY)).toEqual({
    name: "run-control",
    training_data: "ds_1",
    objective: "clip",
    seed: 3,
    hyperparameters: { steps: 200, negatives: "swap" },
    evaluate: [{ benchmark: "winoground", data: "ds_2" }],
    metadata: { note: "first", control_of: "run" },
  });
  expect(withControl(BODY, "job_1").metadata).toEqual({ note: "first", control: "job_1" });
});

test("the name of a control fits where the job's own name is as long as it may be", () => {
  expect(controlOf({ name: "n".repeat(64) }).name).toBe(`${"n".repeat(56)}-control`);
});

test("a copy of a job has its changes, another name, and offers the control again", () => {
  const job = {
    kind: "finetune",
    name: "run",
    training_data: "ds_1",
    teacher: "demo",
    objective: "score",
    promote: "never",
    max_run_time_s: 3600,
    hyperparameters: { steps: 200, lr: 0.0005, activation_checkpointing: false },
    thresholds: { max_p: 0.05 },
    evaluate: [{ benchmark: "winoground", data: "ds_2" }],
    metadata: { note: "first", control: "job_1" },
  } as unknown as Job;
  expect(draftOf(FIELDS, job)).toEqual({
    values: {
      name: "run-2",
      training_data: "ds_1",
      teacher: "demo",
      objective: "score",
      "hyperparameters.steps": "200",
      "hyperparameters.lr": "0.0005",
    },
    evaluate: [{ benchmark: "winoground", data: "ds_2" }],
    metadata: { note: "first" },
    control: true,
  });
});

test("a job that tells its request is copied as it was asked for, with the model and the data that it used", () => {
  const job = {
    kind: "finetune",
    name: "",
    base: "a655",
    training_data: "ds_1",
    max_run_time_s: 3600,
    request: {
      base: "default",
      training_data: "my-pairs",
      max_run_time_s: 60,
      hyperparameters: { steps: 200 },
    },
    evaluate: [],
    metadata: {},
  } as unknown as Job;
  expect(draftOf([...FIELDS, field("base", "text", "default")], job).values).toEqual({
    base: "a655",
    training_data: "ds_1",
    max_run_time_s: "60",
    "hyperparameters.steps": "200",
  });
});

test("a copy of an evaluation has its options", () => {
  const job = {
    kind: "evaluate",
    name: "",
    model: "demo",
    options: { draws: 8, seed: 0 },
    metadata: {},
  } as unknown as Job;
  const fields = [
    field("model", "text", null, true),
    field("draws", "integer", 32),
    field("seed", "integer", 0),
  ];
  expect(draftOf(fields, job).values).toEqual({ model: "demo", draws: "8" });
});

test("an error of several options together is at each that it names", () => {
  const error = { param: "hyperparameters", message: "Give either steps or epochs, but not both." };
  const at = ["hyperparameters.steps", "hyperparameters.epochs", "hyperparameters.lr", "name"].map((path) =>
    isAt(error, path),
  );
  expect(at).toEqual([true, true, false, false]);
  expect(isAt({ param: "name", message: "" }, "name")).toBe(true);
});

test("an error of an item is at its list", () => {
  expect(isAt({ param: "evaluate[1].data", message: "" }, "evaluate")).toBe(true);
});

test("the form tells of every field that is wrong, once, and in the service's words where it has some", () => {
  const fields = [
    field("hyperparameters.lr", "number", 1e-4),
    field("hyperparameters.batch_size", "integer", 64),
    field("seed", "integer", 0),
  ];
  const values = { "hyperparameters.lr": "fast", "hyperparameters.batch_size": "1.5", seed: "1" };
  const told = [
    { param: "training_data", message: "Field required." },
    { param: "hyperparameters.lr", message: "Input should be a valid number." },
  ];
  const own = { param: "hyperparameters.batch_size", message: "Enter a whole number." };
  expect(problemsIn(fields, values, told)).toEqual([...told, own]);
  expect(problemsIn(fields, values, []).map(({ param }) => param)).toEqual([
    "hyperparameters.lr",
    "hyperparameters.batch_size",
  ]);
  expect(problemsIn(fields, {}, [])).toEqual([]);
});

test("names go on counting", () => {
  expect([nextName("run"), nextName("run-2"), nextName("n".repeat(64))]).toEqual([
    "run-2",
    "run-3",
    `${"n".repeat(62)}-2`,
  ]);
  expect(proposedName("score", new Date(Date.UTC(2026, 0, 2, 3, 4, 5)))).toBe("score-20260102-030405");
});
