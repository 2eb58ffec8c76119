import { expect, test } from "vitest";
import { firstDraft, type Inputs } from "./inputs";

const INPUTS = {
  fields: { finetune: [], evaluate: [] },
  datasets: [{ id: "ds_1", format: "winoground" }],
  models: undefined,
  workers: [],
  from: undefined,
} as unknown as Inputs;

test("an evaluation begins with what its link names", () => {
  const query = new URLSearchParams({ kind: "evaluate", data: "ds_1", model: "a", baseline: "b" });
  expect(firstDraft("evaluate", INPUTS, query).values).toEqual({
    data: "ds_1",
    benchmark: "winoground",
    model: "a",
    baseline: "b",
  });
});

test("without a link no data are chosen, and the model in service is measured alone", () => {
  const { values } = firstDraft("evaluate", INPUTS, new URLSearchParams());
  expect(values).toEqual({ data: "", model: "default", baseline: "" });
});

test("an evaluation of another model has the same data, and its model must be chosen", () => {
  const from = { kind: "evaluate", name: "", model: "a", data: "ds_1", options: {}, metadata: {} };
  const fields = { finetune: [], evaluate: ["model", "data"].map((path) => ({ path, default: null })) };
  const query = new URLSearchParams({ from: "job_1", model: "" });
  const { values } = firstDraft("evaluate", { ...INPUTS, fields, from } as unknown as Inputs, query);
  expect(values).toEqual({ data: "ds_1", model: "" });
});
