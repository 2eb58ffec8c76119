import { describe, expect, test } from "vitest";
import { proposals, swappedWords } from "./swaps";
import { join, split } from "./words";

describe("proposals", () => {
  test("swap attributes, nouns and phrases around a relation", () => {
    expect(proposals("a red circle left of a blue square", 9)).toEqual([
      "a blue circle left of a red square",
      "a red square left of a blue circle",
      "a blue square left of a red circle",
    ]);
  });

  test("keep the articles that words have, and give others theirs", () => {
    expect(proposals("a lime hourglass above an oval", 9)).toEqual([
      "a lime oval above an hourglass",
      "an oval above a lime hourglass",
    ]);
    expect(proposals("an hourglass above a red oval", 9)).toContain("a red oval above an hourglass");
  });

  test("keep the first letter's case and the punctuation", () => {
    expect(proposals("A dog chases a cat.", 9)).toEqual(["A cat chases a dog."]);
    expect(proposals("Large dogs above small cats", 1)).toEqual(["Small dogs above large cats"]);
  });

  test("leave out what says the same in another order", () => {
    expect(proposals("a dog and a cat", 9)).toEqual([]);
    expect(proposals("a red circle beside a red square", 9)).toEqual([]);
    expect(proposals("a red circle beside a blue circle", 9)).toEqual([]);
  });

  test("say each rival once, and never the caption itself", () => {
    expect(proposals("a red circle above a red square", 9)).toEqual(["a red square above a red circle"]);
    expect(proposals("a dog and a dog", 9)).toEqual([]);
    expect(proposals("one dog", 9)).toEqual([]);
    expect(proposals("", 9)).toEqual([]);
  });

  test("are as few as asked for, and different in kind", () => {
    expect(proposals("a red circle, a blue square and a green star", 3)).toEqual([
      "a blue circle, a red square and a green star",
      "a red square, a blue circle and a green star",
      "a green circle, a blue square and a red star",
    ]);
  });
});

test("two words are swapped in either order", () => {
  const expected = "the grass eats the horse";
  expect(swappedWords("the horse eats the grass", 1, 4)).toBe(expected);
  expect(swappedWords("the horse eats the grass", 4, 1)).toBe(expected);
});

test.each(["", " a  dog's bowl, here ", "Straße, naïve – 猫"])("the parts of %j join to it", (text) => {
  expect(join(split(text))).toBe(text);
});
