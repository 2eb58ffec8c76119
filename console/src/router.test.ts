import { expect, test } from "vitest";
import { address, parse } from "./router";

test("an address has a page, what follows it, and a query", () => {
  const route = parse("#/jobs/job_1?tab=curves&x=a%20b");
  expect([route.page, route.rest, route.query.get("tab"), route.query.get("x")]).toEqual([
    "jobs",
    ["job_1"],
    "curves",
    "a b",
  ]);
});

test.each(["", "#", "#/"])("%j names no page", (hash) => {
  expect(parse(hash)).toMatchObject({ page: "", rest: [] });
});

test("what was put into an address comes out of it", () => {
  const name = "a/b?c#d %41";
  const { rest, query } = parse(address(["jobs", name], { tag: name, none: undefined, empty: "" }));
  expect(rest).toEqual([name]);
  expect([...query]).toEqual([["tag", name]]);
});

test("an address that is typed badly is read as it is", () => {
  expect(parse("#/jobs/100%")).toMatchObject({ rest: ["100%"] });
});
