import { expect, test } from "vitest";
import type { Schemas } from "../../api/client";
import { isServedByAll, progressOf, summaryOf } from "./rollout";

type Name = Schemas["NameStatus"];

const alias: Schemas["AliasInfo"] = {
  name: "default",
  object: "alias",
  version: "new",
  generation: 3,
  previous: "old",
  updated_at: 0,
  owner: "",
  lock: null,
  removed_at: null,
};

const process = (pid: number, name: Partial<Name>, state: "read" | "none" = "read") =>
  ({
    process: String(pid),
    host: "one",
    pid,
    started_at: 0,
    at: 0,
    aliases: { state, source: "registry" },
    models: [{ name: "default", from_copy: false, loading: false, ...name }],
  }) as Schemas["ProcessStatus"];

const failed = {
  version: "new",
  generation: 3,
  at: 0,
  code: "damaged",
  reason: "It is damaged.",
  attempts: 1,
};

test("a process serves a generation or a later one, or says why not", () => {
  const found = progressOf(
    [
      process(1, { version: "new", generation: 3 }),
      process(2, { version: "old", generation: 2 }),
      process(3, { version: "old", generation: 2, last_failed_load: failed }),
      process(4, { version: "newer", generation: 4 }),
      process(5, { version: "other", generation: 3 }),
      process(6, {}, "none"),
    ],
    alias,
  );
  expect(found.map(({ state }) => state)).toEqual(["serving", "behind", "failed", "serving", "behind"]);
  expect(found[2]?.error).toBe("It is damaged.");
  expect([isServedByAll(found), summaryOf(found)]).toEqual([false, "2 of 5 processes"]);
});

test("all are counted in words", () => {
  const one = progressOf([process(1, { version: "new", generation: 3 })], alias);
  expect([summaryOf(one), summaryOf([...one, ...one]), summaryOf([])]).toEqual([
    "the one process",
    "all 2 processes",
    "no process",
  ]);
});
