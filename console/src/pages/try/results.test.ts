import { expect, test } from "vitest";
import type { Schemas } from "../../api/client";
import { captionVerdict, isChanged, matrix, ofClassify, ofMatch } from "./results";

const model = { name: "demo", version: "a", generation: 1 };
const broken = {
  index: 1,
  error: { type: "x", code: "image_truncated", message: "The image is cut short." },
};
const image = (index: number, probabilities: number[]) => ({
  index,
  probabilities,
  scores: probabilities.map((p) => p / 2),
  logits: probabilities,
  best: 0,
  best_text: "a cat",
});
const texts = ["a cat", "a dog"];
const before: Schemas["MatchResponse"] = {
  model,
  results: [image(0, [0.3, 0.7]), broken, image(2, [0.9, 0.1])],
  text_probabilities: [
    [0.2, 0.8],
    [0.6, 0.4],
  ],
};
const after = { ...before, results: [image(0, [0.8, 0.2]), broken, image(2, [0.9, 0.1])] };

test("texts come best first for the first model, with what both say", () => {
  const [first, second, third] = ofMatch(texts, [before, after]);
  expect(
    first?.rows.map(({ text, readings }) => [text, ...readings.map((each) => each?.probability)]),
  ).toEqual([
    ["a dog", 0.7, 0.2],
    ["a cat", 0.3, 0.8],
  ]);
  expect(first?.best).toEqual(["a dog", "a cat"]);
  expect([first, second, third].map((each) => each && isChanged(each))).toEqual([true, false, false]);
});

test("a caption that a rival beats is told to have lost", () => {
  const [first, second, third] = ofMatch(texts, [before, after]);
  const verdicts = [first, second, third].map(
    (each) => each && captionVerdict(each, "a cat", ["one", "two"]),
  );
  expect(verdicts).toEqual([
    { won: false, text: "The caption lost to a rival with one" },
    undefined,
    { won: true, text: "The caption won" },
  ]);
  const [alone] = ofMatch(texts, [before]);
  expect(alone && captionVerdict(alone, "a cat", ["one"])?.text).toBe("The caption lost to a rival");
});

test("a broken picture has its error and no rows", () => {
  expect(ofMatch(texts, [before])[1]).toEqual({
    error: "The image is cut short.",
    rows: [],
    best: [undefined],
  });
});

test("a label that one model does not list has no number there, and comes last", () => {
  const answer = (...labels: [string, number][]): Schemas["ClassifyResponse"] => ({
    model,
    results: [
      {
        index: 0,
        predictions: labels.map(([label, probability], index) => ({ label, index, probability, score: 0.1 })),
      },
    ],
  });
  const [picture] = ofClassify([answer(["cat", 0.6], ["dog", 0.3]), answer(["owl", 0.9], ["cat", 0.05])]);
  expect(
    picture?.rows.map(({ text, readings }) => [text, ...readings.map((each) => each?.probability)]),
  ).toEqual([
    ["cat", 0.6, 0.05],
    ["dog", 0.3, undefined],
    ["owl", undefined, 0.9],
  ]);
});

test("the matrix has both directions and the cosine, with a gap for a broken picture", () => {
  expect(matrix(texts, before, "texts")).toEqual([
    [0.3, null, 0.9],
    [0.7, null, 0.1],
  ]);
  expect(matrix(texts, before, "pictures")).toEqual([
    [0.2, null, 0.8],
    [0.6, null, 0.4],
  ]);
  expect(matrix(texts, before, "cosine")).toEqual([
    [0.15, null, 0.45],
    [0.35, null, 0.05],
  ]);
});
