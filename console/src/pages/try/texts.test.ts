import { expect, test } from "vitest";
import { cut, lines, repeated } from "./texts";

test("each line is a text once, and repeated ones are told", () => {
  expect(lines(" a cat\n\na dog\na cat ")).toEqual(["a cat", "a dog"]);
  expect(repeated("a cat\na dog\na cat\na cat")).toBe("2 lines are the same as another one and left out.");
  expect(repeated("a cat\n\n\na dog")).toBeUndefined();
});

test("long texts are told to be read in part", () => {
  expect(cut(["a cat", "x".repeat(2000)], 77)).toContain("1 text is long. The model reads only the first 77");
  expect(cut(["word ".repeat(60)], 77)).toContain("about 51 words");
  expect(cut(["a red circle left of a blue square"], 77)).toBeUndefined();
  expect(cut(["x".repeat(2000)], undefined)).toBeUndefined();
});
