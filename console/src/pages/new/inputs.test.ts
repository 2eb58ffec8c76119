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
  const query = new URLSearchParams({ kind: "evaluate", model: "a", baseline: "b" });
  expect(firstDraft("evaluate", INPUTS, query).values).toEqual({
    data: "ds_1",
    benchmark: "winoground",
    model: "a",
    baseline: "b",
  });
});

test("an evaluation without a link measures the model in service alone", () => {
  const { values } = firstDraft("evaluate", INPUTS, new URLSearchParams());
  expect(values).toMatchObject({ model: "default", baseline: "" });
});
