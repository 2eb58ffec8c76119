import { expect, test } from "vitest";
import type { Schemas } from "../../api/description";
import { meaningOf, readFields, sections, wrongIn } from "./schema";

const SCHEMAS: Schemas = {
  Job: {
    required: ["data"],
    properties: {
      data: {
        type: "string",
        pattern: "^[a-z_0-9]+$",
        description: "The data set\nto train on.\n\nIts format is `pairs`.",
      },
      name: { anyOf: [{ type: "string" }, { type: "null" }], default: null },
      objective: {
        enum: ["clip", "sds-clip"],
        default: "sds-clip",
        description: "What is trained. `sds-clip` adds L_SDS. `clip` is the control without a teacher.",
      },
      classes: { anyOf: [{ const: "imagenet", type: "string" }, { type: "null" }], default: null },
      options: { $ref: "#/components/schemas/Options" },
      notes: { type: "object" },
      evaluate: { type: "array" },
    },
  },
  Options: {
    properties: {
      steps: {
        anyOf: [{ type: "integer", minimum: 1 }, { type: "null" }],
        default: null,
        "x-section": "Length",
      },
      lr: { type: "number", default: 0.0001, exclusiveMinimum: 0, "x-section": "Optimizer" },
      weight: {
        anyOf: [{ type: "number", minimum: 0 }, { const: "auto", type: "string" }, { type: "null" }],
        default: null,
        "x-section": "Optimizer",
      },
      t_max: { type: "number", default: 0.95, minimum: 0, maximum: 1, "x-section": "Optimizer" },
      seed: { type: "integer", default: 0, minimum: 0, exclusiveMaximum: 10, "x-section": "Length" },
      checkpointing: { type: "boolean", default: false },
    },
  },
};

const fields = readFields(SCHEMAS, "Job");
const field = (path: string) => fields.find((each) => each.path === path);

test("every plain field is read by its path, and lists and mappings are not", () => {
  expect(fields.map(({ path, kind }) => `${path} ${kind}`)).toEqual([
    "data text",
    "name text",
    "objective choice",
    "classes choice",
    "options.steps integer",
    "options.lr number",
    "options.weight number",
    "options.t_max number",
    "options.seed integer",
    "options.checkpointing flag",
  ]);
});

test("a field has its default, its choices, and whether it may or must be given", () => {
  expect(field("options.lr")).toMatchObject({ default: 0.0001, optional: false, required: false });
  expect(field("data")).toMatchObject({
    default: null,
    required: true,
    description: "The data set to train on.\n\nIts format is `pairs`.",
  });
  expect(field("options.steps")).toMatchObject({ default: null, optional: true });
  expect(field("objective")?.choices).toEqual(["clip", "sds-clip"]);
  expect(field("classes")).toMatchObject({ choices: ["imagenet"], optional: true });
});

test.each([
  ["options.steps", "at least 1"],
  ["options.lr", "above 0"],
  ["options.t_max", "from 0 to 1"],
  ["options.seed", "at least 0, below 10"],
  ["data", ""],
])("the bounds of %s are %j", (path, bounds) => expect(field(path)?.bounds).toBe(bounds));

test.each([
  ["options.steps", ["", "1", " 20 ", "1e3"], ["0", "1.5", "many"], "Enter a whole number, at least 1."],
  ["options.lr", ["1e-4", "2"], ["", "0", "-1", "fast"], "Enter a number, above 0."],
  ["options.t_max", ["0", "1"], ["1.1", "-0.1"], "Enter a number, from 0 to 1."],
  ["options.seed", ["0", "9"], ["10"], "Enter a whole number, at least 0, below 10."],
  ["data", ["", "ds_1"], ["a b"], "This text has a form that is not allowed here."],
  ["objective", ["clip"], [], ""],
])("the description tells what is wrong in %s", (path, right, wrong, message) => {
  const found = field(path);
  if (!found) throw new Error(path);
  expect(right.map((text) => wrongIn(found, text))).toEqual(right.map(() => undefined));
  expect(wrong.map((text) => wrongIn(found, text))).toEqual(wrong.map(() => message));
});

test("sections stand in the order of their first fields, and a field without one is not lost", () => {
  const shown = sections(fields.filter(({ path }) => path.startsWith("options.")));
  expect(shown.map(({ title, fields }) => [title, fields.map(({ name }) => name)])).toEqual([
    ["Length", ["steps", "seed"]],
    ["Optimizer", ["lr", "weight", "t_max"]],
    ["Other", ["checkpointing"]],
  ]);
});

test("what a choice means is in the sentence that begins with it", () => {
  const description = field("objective")?.description ?? "";
  expect(["sds-clip", "clip", "score"].map((choice) => meaningOf(description, choice))).toEqual([
    "Adds L_SDS.",
    "The control without a teacher.",
    "",
  ]);
});
