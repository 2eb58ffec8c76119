import { expect, test } from "vitest";
import { addressOf, readFilters, refined } from "./filters";

test("filters are what the address says, and an unknown status is none", () => {
  const filters = readFilters(new URLSearchParams("name=a%26b&status=ready&after=ds_1&other=1"));
  expect(filters).toEqual({ name: "a&b", status: "ready", after: "ds_1" });
  expect(readFilters(new URLSearchParams("status=lost&name="))).toEqual({});
  expect(addressOf(filters)).toBe("#/data?name=a%26b&status=ready&after=ds_1");
});

test("another filter begins with the first page, and an empty one is taken out", () => {
  const filters = { name: "a", after: "ds_1" };
  expect(refined(filters, { format: "pairs" })).toEqual({ name: "a", format: "pairs" });
  expect(refined(filters, { name: "" })).toEqual({});
  expect(addressOf(refined(filters, { name: "" }))).toBe("#/data");
});
