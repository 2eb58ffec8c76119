import { expect, test } from "vitest";
import { type Asked, curl, python } from "./snippets";

const asked: Asked = {
  route: "/match",
  url: "http://127.0.0.1:8000",
  files: ['it\'s a "photo";1.png'],
  texts: ["@home", "$(touch x) it's `y`"],
  models: ["", "v2"],
  needsKey: false,
};

test("curl gets every text as it is, whatever it contains", () => {
  const same = [
    "curl 'http://127.0.0.1:8000/match' \\",
    `  -F 'images=@"it'\\''s a \\"photo\\";1.png"' \\`,
    "  --form-string 'texts=@home' \\",
    "  --form-string 'texts=$(touch x) it'\\''s `y`'",
  ].join("\n");
  expect(curl(asked)).toBe(`${same}\n\n${same} \\\n  --form-string 'model=v2'`);
});

test("curl sends labels, templates and the key where they are needed", () => {
  const classify: Asked = { ...asked, route: "/classify", texts: ["dog"], models: [""], needsKey: true };
  expect(curl({ ...classify, files: ["a.png"], templates: ["a {}"], topK: 3 }).split(" \\\n  ")).toEqual([
    "curl 'http://127.0.0.1:8000/classify'",
    '-H "Authorization: Bearer $SDS_CLIP_API_KEY"',
    `-F 'images=@"a.png"'`,
    "--form-string 'labels=dog'",
    "--form-string 'templates=a {}'",
    "--form-string 'top_k=3'",
  ]);
});

test("Python has a call for each model", () => {
  const lines = python(asked).split("\n");
  expect(lines.slice(-2)).toEqual([
    "print(client.match(images, texts))",
    'print(client.match(images, texts, model="v2"))',
  ]);
  expect(lines).toContain('texts = ["@home", "$(touch x) it\'s `y`"]');
});

test("Python names a set of templates, and lists one's own", () => {
  const classify: Asked = { ...asked, route: "/classify", models: [""], topK: 5 };
  expect(python({ ...classify, templates: ["openai"] })).toContain('templates="openai", top_k=5');
  expect(python({ ...classify, templates: ["a {}"] })).toContain('templates=["a {}"], top_k=5');
});
