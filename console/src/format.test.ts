import { expect, test } from "vitest";
import {
  bytes,
  compact,
  count,
  counted,
  duration,
  figure,
  percent,
  points,
  relative,
  score,
  shareInterval,
  shortId,
  words,
} from "./format";

test("what is missing is a dash", () => {
  expect([percent, score, figure, count, bytes, duration].map((write) => write(null))).toEqual(
    Array(6).fill("–"),
  );
});

test("shares are percentages, and differences between them have a sign", () => {
  expect([percent(0.324), percent(1), percent(0.5, 0)]).toEqual(["32.4 %", "100.0 %", "50 %"]);
  expect([shareInterval(0.321, 0.402), shareInterval(0.1, undefined)]).toEqual(["32.1 to 40.2 %", "–"]);
  expect([points(0.123), points(-0.5), points(0.0004), points(-0.0004)]).toEqual([
    "+12.3",
    "−50.0",
    "0.0",
    "0.0",
  ]);
});

test("numbers are as long as they can be compared", () => {
  expect([score(0.31), score(-0.03)]).toEqual(["0.3100", "−0.0300"]);
  expect([figure(0.000123456), figure(1234567)]).toEqual(["0.0001235", "1,235,000"]);
  expect([compact(0.0000889), compact(-0.02415), compact(0)]).toEqual(["8.89e−5", "−0.02415", "0"]);
  expect([counted(1, "picture"), counted(1200, "match", "matches")]).toEqual(["1 picture", "1,200 matches"]);
});

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1536, "1.5 KiB"],
  [5 * 2 ** 30, "5.0 GiB"],
])("%d bytes are %s", (value, text) => expect(bytes(value)).toBe(text));

test.each([
  [0, "0 s"],
  [200, "3 min 20 s"],
  [7500, "2 h 5 min"],
  [7200, "2 h"],
  [273_600, "3 d 4 h"],
])("%d seconds are %s", (value, text) => expect(duration(value)).toBe(text));

test("times are near or far, before or ahead", () => {
  expect([relative(98, 100), relative(40, 100), relative(0, 200), relative(300, 0)]).toEqual([
    "now",
    "1 min ago",
    "3 min ago",
    "in 5 min",
  ]);
});

test("an id is cut, and a name is not", () => {
  expect([shortId("a".repeat(64)), shortId("my-model")]).toEqual(["a".repeat(12), "my-model"]);
});

test("a name is read as words", () => {
  expect(words("training_data")).toBe("Training data");
});
