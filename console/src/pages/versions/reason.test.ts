import { expect, test } from "vitest";
import { isReason, isTooLong, lengthOf } from "./reason";

test("a reason is needed, and its characters are counted as the service counts them", () => {
  expect([isReason(""), isReason(" \n"), isReason("worse")]).toEqual([false, false, true]);
  expect(lengthOf("😀".repeat(1000))).toBe(1000);
  expect([isTooLong("😀".repeat(1000)), isTooLong("x".repeat(1001))]).toEqual([false, true]);
  expect(isReason("x".repeat(1001))).toBe(false);
});
