import { describe, expect, test } from "vitest";
import { type Made, missingBases, treeOf, withBases } from "./tree";

const made = (id: string, base_version: string | null, created_at: number): Made => ({
  id,
  base: base_version && `the base ${base_version}`,
  base_version,
  created_at,
});

const drawn = (versions: Made[]) =>
  treeOf(versions).map(({ id, lines, version }) => {
    const marks = lines.map((leadsOn, level) =>
      level === lines.length - 1 ? (leadsOn ? "├" : "└") : leadsOn ? "│" : " ",
    );
    return `${marks.join("")}${id}${version ? "" : "?"}`;
  });

describe("the tree of versions", () => {
  test("has each version below its base, the newest first", () => {
    const versions = [
      made("d", "b", 4),
      made("c", "a", 3),
      made("b", "a", 2),
      made("e", "c", 5),
      made("a", null, 1),
      made("other", null, 6),
    ];
    expect(drawn(versions)).toEqual(["other", "a", "├c", "│└e", "└b", " └d"]);
  });

  test("has a base that is not listed once, with the name that its versions give it", () => {
    const rows = treeOf([made("b", "gone", 2), made("a", "gone", 1), made("old", null, 0)]);
    expect(rows.map(({ id, depth }) => [id, depth])).toEqual([
      ["gone", 0],
      ["b", 1],
      ["a", 1],
      ["old", 0],
    ]);
    expect(rows[0]).toMatchObject({ version: undefined, name: "the base gone" });
  });

  test("ends where versions are based on each other", () => {
    expect(drawn([made("a", "b", 1), made("b", "a", 2), made("c", "a", 3), made("d", "d", 4)])).toEqual([
      "a",
      "├c",
      "└b",
      "d",
    ]);
  });

  test("of nothing is empty", () => {
    expect(treeOf([])).toEqual([]);
  });
});

test("bases that are missing are named once", () => {
  expect(missingBases([made("b", "gone", 2), made("a", "gone", 1), made("c", "a", 3)])).toEqual(["gone"]);
});

test("bases that are not listed are added back to the first, and nothing else", () => {
  const details = new Map<string, Made | null>([
    ["old", made("old", "older", 2)],
    ["older", made("older", "hidden", 1)],
    ["hidden", null],
    ["deleted meanwhile", made("deleted meanwhile", "old", 4)],
  ]);
  expect(withBases([made("new", "old", 3)], details).map(({ id }) => id)).toEqual(["new", "old", "older"]);
});
