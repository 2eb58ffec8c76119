/** The texts of a form, one per line, and what a reader should know of them. */

import { counted } from "../../format";

/** A token is about four letters of English, and a word about one and a half tokens. */
const LETTERS_OF_TOKEN = 4;
const TOKENS_OF_WORD = 1.5;

const all = (text: string) =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);

/** Each line once. */
export function lines(text: string): string[] {
  return [...new Set(all(text))];
}

/** Says that lines are repeated, where that is so. */
export function repeated(text: string): string | undefined {
  const more = all(text).length - lines(text).length;
  return more ? `${counted(more, "line is", "lines are")} the same as another one and left out.` : undefined;
}

/** Says that texts may be longer than what a model reads of them. The service does not tell which ones it has cut. */
export function cut(texts: readonly string[], contextLength: number | undefined): string | undefined {
  if (contextLength === undefined) return undefined;
  const words = Math.floor(contextLength / TOKENS_OF_WORD);
  const long = texts.filter(
    (text) => text.length > LETTERS_OF_TOKEN * contextLength || text.split(/\s+/).length > words,
  );
  if (!long.length) return undefined;
  return (
    `${counted(long.length, "text is", "texts are")} long. The model reads only the first ${contextLength} ` +
    `tokens of a text, which are about ${words} words, and ignores the rest.`
  );
}
