/** Rivals of a caption: its own words, swapped so that it says something else. After models/data/negatives.py. */

import { type Caption, join, type Phrase, phrases, split } from "./words";

const SYMMETRIC = new Set("and or next to beside near alongside together adjacent is are".split(" "));

/** The words from `start` to before `stop`. */
type Range = readonly [start: number, stop: number];

/** Captions with two adjectives, two nouns or two phrases swapped. Kinds take turns, so that the first few differ. */
export function proposals(text: string, count: number): string[] {
  const caption = split(text);
  const all = phrases(caption);
  const pairs = pairsOf(all);
  const kinds = [attributes, nouns, wholes].map((kind) =>
    pairs.flatMap((pair) => kind(pair).filter((swap) => !isSymmetric(caption, all, pair, swap))),
  );
  const turns = Math.max(...kinds.map((kind) => kind.length));
  const found = new Map<string, string>();
  for (let turn = 0; turn < turns; turn += 1) {
    for (const kind of kinds) {
      const swap = kind[turn];
      const rival = swap && swapped(caption, ...swap);
      if (rival && !found.has(rival.toLowerCase())) found.set(rival.toLowerCase(), rival);
    }
  }
  found.delete(text.toLowerCase());
  return [...found.values()].slice(0, count);
}

/** The caption with the words at two places swapped. */
export function swappedWords(text: string, one: number, other: number): string {
  const [first, second] = one < other ? [one, other] : [other, one];
  return swapped(split(text), [first, first + 1], [second, second + 1]);
}

type Pair = readonly [Phrase, Phrase];
type Swap = readonly [Range, Range];

function pairsOf(all: Phrase[]): Pair[] {
  return all.flatMap((one, place) => all.slice(place + 1).map((other): Pair => [one, other]));
}

/** Words at the same distance from the ends of both phrases, which swaps colour with colour. */
function attributes([one, other]: Pair): Swap[] {
  const shorter = Math.min(one.stop - one.start, other.stop - other.start);
  return Array.from({ length: Math.max(0, shorter - 1) }, (_, nearer): Swap => {
    const [first, second] = [one.stop - nearer - 2, other.stop - nearer - 2];
    return [
      [first, first + 1],
      [second, second + 1],
    ];
  });
}

function nouns([one, other]: Pair): Swap[] {
  return [
    [
      [one.stop - 1, one.stop],
      [other.stop - 1, other.stop],
    ],
  ];
}

function wholes([one, other]: Pair): Swap[] {
  return [
    [
      [one.determined, one.stop],
      [other.determined, other.stop],
    ],
  ];
}

/** Whether a swap only changes the order of two phrases that are joined by words such as `and`. */
function isSymmetric(
  { words }: Caption,
  all: Phrase[],
  [one, other]: Pair,
  [range, otherRange]: Swap,
): boolean {
  const rest = ({ start, stop }: Phrase, [from, to]: Range) =>
    [...words.slice(start, Math.max(start, from)), ...words.slice(to, stop)].join(" ").toLowerCase();
  const isInPhrase = (place: number) => all.some((each) => each.determined <= place && place < each.stop);
  const joining = words.slice(one.stop, other.determined).filter((_, away) => !isInPhrase(one.stop + away));
  return (
    rest(one, range) === rest(other, otherRange) && joining.every((word) => SYMMETRIC.has(word.toLowerCase()))
  );
}

/** The caption after a swap, with `a` and `an` corrected and the first letter's case kept. */
function swapped(caption: Caption, [start, stop]: Range, [otherStart, otherStop]: Range): string {
  const { words, gaps } = caption;
  const moved = [
    ...words.slice(0, start),
    ...words.slice(otherStart, otherStop),
    ...words.slice(stop, otherStart),
    ...words.slice(start, stop),
    ...words.slice(otherStop),
  ];
  // Gaps inside a range move with it; those around it stay.
  const between = [
    ...gaps.slice(0, start + 1),
    ...gaps.slice(otherStart + 1, otherStop),
    ...gaps.slice(stop, otherStart + 1),
    ...gaps.slice(start + 1, stop),
    ...gaps.slice(otherStop),
  ];
  const first = words[0];
  if (first && start === 0 && /^\p{Lu}/u.test(first)) {
    const landed = otherStop - stop;
    moved[landed] = (moved[landed] ?? "").replace(/^./u, (letter) => letter.toLowerCase());
    moved[0] = (moved[0] ?? "").replace(/^./u, (letter) => letter.toUpperCase());
  }
  return join({ words: withArticles(caption, moved), gaps: between });
}

/** A word that follows `a` or `an` in the caption keeps that article (an hourglass). Others go by their beginning. */
function withArticles({ words }: Caption, moved: string[]): string[] {
  const isArticle = (word: string | undefined) => /^an?$/i.test(word ?? "");
  const said = new Map(
    words.slice(1).flatMap((word, place) => {
      const before = words[place];
      return before && isArticle(before) ? [[word.toLowerCase(), before.toLowerCase()] as const] : [];
    }),
  );
  return moved.map((word, place) => {
    const following = moved[place + 1]?.toLowerCase();
    if (!isArticle(word) || !following) return word;
    const article = said.get(following) ?? (/^([aeiou]|hour)/.test(following) ? "an" : "a");
    return /^A/.test(word) ? article.replace("a", "A") : article;
  });
}
