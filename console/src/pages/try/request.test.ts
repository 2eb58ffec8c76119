import { expect, test } from "vitest";
import { isSame, type Request } from "./request";

const picture = { file: new File([], "a.png"), url: "blob:a" };
const request: Request = {
  kind: "match",
  pictures: [picture],
  texts: ["a cat"],
  caption: undefined,
  templates: ["simple"],
  models: [""],
};

test("a request is the same while nothing that it sends has changed", () => {
  expect(isSame(request, { ...request, pictures: [picture], templates: ["openai"] })).toBe(true);
});

test.each<[string, Partial<Request>]>([
  ["a picture was removed", { pictures: [] }],
  ["a text was changed", { texts: ["a dog"] }],
  ["the tab was changed", { kind: "classify" }],
  ["the texts are those of a caption and its rivals", { caption: "a cat" }],
  ["another version was chosen", { models: ["", "v2"] }],
])("it is another one when %s", (_, changes) => {
  expect(isSame(request, { ...request, ...changes })).toBe(false);
});

test("templates count where labels are classified", () => {
  const classify: Request = { ...request, kind: "classify" };
  expect(isSame(classify, { ...classify, templates: ["openai"] })).toBe(false);
});
