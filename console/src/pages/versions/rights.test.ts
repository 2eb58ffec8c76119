import { describe, expect, test } from "vitest";
import type { Schemas } from "../../api/client";
import { mayMove, whyNotDelete, whyNotDownload, whyNotPromote } from "./rights";

const version = (changes: Partial<Schemas["VersionInfo"]> = {}): Schemas["VersionInfo"] => ({
  id: "b".repeat(64),
  object: "model",
  status: "ready",
  damaged_at: null,
  created_at: 0,
  size_bytes: 1,
  base: "demo",
  base_version: null,
  job_id: "job_1",
  owner: "alice",
  downloadable: true,
  aliases: [],
  ...changes,
});
const alias = (owner: string): Schemas["AliasInfo"] => ({
  name: "hers",
  object: "alias",
  version: "a".repeat(64),
  generation: 1,
  previous: null,
  updated_at: 0,
  owner,
  lock: null,
  removed_at: null,
});
const key = (name: string, ...scopes: string[]) => ({ name, scopes });
const alice = key("alice", "infer", "train");
const bob = key("bob", "infer", "train");

describe("who may promote", () => {
  test("everybody without keys, and the scope admin", () => {
    expect(whyNotPromote(null, version(), [])).toBeUndefined();
    expect(whyNotPromote(key("root", "infer", "admin"), version(), [])).toBeUndefined();
  });

  test("the owner of an alias, its own versions", () => {
    expect(whyNotPromote(alice, version(), [alias("alice")])).toBeUndefined();
    expect(whyNotPromote(alice, version(), [alias("")])).toContain("given to this key");
    expect(whyNotPromote(bob, version(), [alias("bob")])).toContain("its own jobs");
    expect(whyNotPromote(key("eve", "infer"), version(), [])).toContain("scope admin");
    expect([mayMove(alice, alias("alice")), mayMove(alice, alias("")), mayMove(null, alias(""))]).toEqual([
      true,
      false,
      true,
    ]);
  });

  test("nobody, a version whose files are damaged or gone", () => {
    expect(whyNotPromote(null, version({ status: "damaged" }), [])).toContain("damaged");
    expect(whyNotPromote(null, version({ status: "deleted" }), [])).toContain("deleted");
  });
});

test("a version that is needed cannot be deleted", () => {
  expect(whyNotDelete(null, version(), 0)).toBeUndefined();
  expect(whyNotDelete(alice, version(), 0)).toBeUndefined();
  expect(whyNotDelete(bob, version(), 0)).toContain("Only its owner");
  expect(whyNotDelete(null, version({ aliases: ["default"] }), 0)).toContain("the alias default");
  expect(whyNotDelete(null, version(), 1)).toContain("while 1 version is based on it");
  expect(whyNotDelete(null, version(), 2)).toContain("while 2 versions are based on it");
});

test("who may download", () => {
  expect(whyNotDownload(null, version())).toBeUndefined();
  expect(whyNotDownload(key("eve", "infer"), version())).toContain("scope train");
  expect(whyNotDownload(null, version({ downloadable: false }))).toContain("operator");
  expect(whyNotDownload(null, version({ downloadable: false, status: "damaged" }))).toContain("damaged");
});
