import { expect, test } from "vitest";
import { entriesOf, textAt } from "./description";

const description = {
  base: { reference: "demo", quick_gelu: false },
  trained: Array.from({ length: 10 }, (_, number) => `w${number}`),
  configuration: { lr: 0.001, teacher: null, note: "<b>" },
};

test("values are found by their path", () => {
  expect(textAt(description, "base.reference")).toBe("demo");
  expect(textAt(description, "base.quick_gelu")).toBe("false");
  expect(textAt(description, "configuration.teacher")).toBeUndefined();
  expect(textAt(description, "base.reference.more")).toBeUndefined();
});

test("all values are listed, and long lists are cut", () => {
  expect(entriesOf(description)).toEqual([
    ["base.reference", "demo"],
    ["base.quick_gelu", "false"],
    ["trained", "w0, w1, w2, w3, w4, w5, w6, w7 and 2 more"],
    ["configuration.lr", "0.001"],
    ["configuration.note", "<b>"],
  ]);
});
