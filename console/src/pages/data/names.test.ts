import { expect, test } from "vitest";
import { proposedName } from "./names";

test.each([
  ["coco-train.tar.gz", "coco-train"],
  ["My photos (2).ZIP", "My-photos-2-"],
  ["<img src=x onerror=alert(1)>.tar", "img-src-x-onerror-alert-1-"],
  ["ds_old.tar", "ds-old"],
  ["图片.tar", ""],
  [`${"n".repeat(80)}.tar`, "n".repeat(64)],
])("%s is offered as %j", (file, name) => {
  expect(proposedName(new File([], file))).toBe(name);
});

test("no file has no name", () => {
  expect(proposedName(undefined)).toBe("");
});
