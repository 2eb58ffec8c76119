import { expect, test } from "vitest";
import { type Alias, isNews } from "./live";

const ALIAS: Alias = {
  name: "default",
  object: "alias",
  version: "a",
  generation: 1,
  previous: null,
  updated_at: 1,
  owner: "",
  lock: null,
  removed_at: null,
};

test("an alias is news when it is not as it is shown", () => {
  expect(isNews({ type: "alias", data: { ...ALIAS } }, [ALIAS])).toBe(false);
  expect(isNews({ type: "alias", data: { ...ALIAS, generation: 2 } }, [ALIAS])).toBe(true);
  expect(isNews({ type: "alias", data: ALIAS }, [])).toBe(true);
  const removed = { ...ALIAS, removed_at: 2 };
  expect(isNews({ type: "alias", data: removed }, [ALIAS])).toBe(true);
  expect(isNews({ type: "alias", data: removed }, [])).toBe(false);
});

test("a job is news when it has succeeded, and a reset always is", () => {
  expect(isNews({ type: "job", data: { status: "running" } }, [])).toBe(false);
  expect(isNews({ type: "job", data: { status: "succeeded" } }, [])).toBe(true);
  expect(isNews({ type: "reset", data: {} }, [])).toBe(true);
});
