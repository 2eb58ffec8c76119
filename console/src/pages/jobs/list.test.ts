import { expect, test } from "vitest";
import { addressOf, readFilters, refined } from "./filters";
import type { Job, JobList } from "./job";
import { merged, PAGE } from "./merge";

const job = (id: string, created_at: number, changes: object = {}) =>
  ({ id, created_at, kind: "finetune", status: "running", name: id, owner: "", ...changes }) as Job;
const list = (jobs: Job[], has_more = false) => ({ object: "list", data: jobs, has_more }) as JobList;
const ids = (page: JobList) => page.data.map(({ id }) => id);
const query = (text: string) => readFilters(new URLSearchParams(text));

test("filters come out of the address as they were put in", () => {
  const filters = {
    kind: "evaluate",
    status: "failed",
    name: "a&b#c",
    owner: "<i>",
    after: "job_1",
  } as const;
  expect(query(addressOf(filters).split("?")[1] ?? "")).toEqual(filters);
  expect(addressOf({})).toBe("#/jobs");
});

test("an address with unknown words filters by the others", () => {
  expect(query("kind=boil&status=done&owner=alice&name=")).toEqual({ owner: "alice" });
});

test("other filters begin with the first page", () => {
  expect(refined({ name: "a", after: "job_1" }, { status: "queued" })).toEqual({
    name: "a",
    status: "queued",
  });
  expect(refined({ name: "a", after: "job_1" }, { name: "" })).toEqual({});
});

const page = list([job("c", 3), job("b", 2), job("a", 1)]);

test("a job that is shown is replaced where it stands", () => {
  const changed = job("b", 2, { status: "paused" });
  expect(merged(page, changed, {}).data[1]).toBe(changed);
});

test("a job that no longer fits leaves, and one that begins to fit comes in at its place", () => {
  expect(ids(merged(page, job("b", 2, { status: "failed" }), { status: "running" }))).toEqual(["c", "a"]);
  expect(ids(merged(page, job("b2", 2.5), { status: "running" }))).toEqual(["c", "b2", "b", "a"]);
  expect(merged(page, job("d", 4, { kind: "evaluate" }), { kind: "finetune" })).toBe(page);
});

test("a new job is the first of the first page, and pushes out the last one of a full page", () => {
  const full = list(Array.from({ length: PAGE }, (_, place) => job(`j${place}`, 1000 - place)));
  const grown = merged(full, job("new", 2000), {});
  expect([grown.data.length, ids(grown)[0], ids(grown).at(-1), grown.has_more]).toEqual([
    PAGE,
    "new",
    `j${PAGE - 2}`,
    true,
  ]);
});

test("what belongs on another page changes nothing", () => {
  expect(merged(page, job("d", 4), { after: "z" })).toBe(page);
  const first = list(page.data, true);
  expect(merged(first, job("0", 0), {})).toBe(first);
  expect(ids(merged(page, job("0", 0), {}))).toEqual(["c", "b", "a", "0"]);
});
