import { expect, test } from "vitest";
import { isSameVersion, versionNamed } from "./models";

const listed = {
  models: [
    { name: "demo", version: "a", default: true },
    { name: "trial", version: "b", default: false },
  ],
  aliases: [{ name: "default", version: "a" }],
  versions: [
    { id: "a", aliases: ["default"] },
    { id: "c", aliases: [] },
  ],
};

test("aliases, served names, ids and no name at all stand for versions", () => {
  expect(
    ["default", "demo", "trial", "c", "", "elsewhere"].map((name) => versionNamed(name, listed)),
  ).toEqual(["a", "a", "b", "c", "a", undefined]);
});

test("two names of one version are the same, and two that are not known are not", () => {
  expect([isSameVersion("", "demo", listed), isSameVersion("demo", "a", listed)]).toEqual([true, true]);
  expect([isSameVersion("demo", "trial", listed), isSameVersion("x", "y", listed)]).toEqual([false, false]);
  expect(isSameVersion("demo", "a", undefined)).toBe(false);
});
