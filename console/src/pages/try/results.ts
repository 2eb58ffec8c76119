/** The answers of one or two models in the shape in which the page shows them: by picture, best text first. */

import type { Schemas } from "../../api/client";

type Match = Schemas["MatchResponse"];
type Classify = Schemas["ClassifyResponse"];

export interface Reading {
  probability: number;
  /** The cosine similarity. */
  score: number;
}

export interface Row {
  text: string;
  /** What each model says. A model that did not list the label says nothing. */
  readings: (Reading | undefined)[];
}

export interface PictureResult {
  /** Why there are no rows. */
  error: string | undefined;
  /** Best first, for the first model. */
  rows: Row[];
  /** Each model's best text. */
  best: (string | undefined)[];
}

export function ofMatch(texts: readonly string[], answers: readonly Match[]): PictureResult[] {
  return pictures(answers, (answer, place) => {
    const result = answer.results[place];
    if (!result || "error" in result) return { error: result?.error.message };
    return new Map(
      texts.map((text, t) => [
        text,
        { probability: result.probabilities[t] ?? 0, score: result.scores[t] ?? 0 },
      ]),
    );
  });
}

export function ofClassify(answers: readonly Classify[]): PictureResult[] {
  return pictures(answers, (answer, place) => {
    const result = answer.results[place];
    if (!result || "error" in result) return { error: result?.error.message };
    return new Map(
      result.predictions.map(({ label, probability, score }) => [label, { probability, score }]),
    );
  });
}

/** Whether the second model prefers another text than the first. */
export function isChanged({ best: [one, other] }: PictureResult): boolean {
  return one !== undefined && other !== undefined && one !== other;
}

/** Which models prefer a rival to the caption: all, none, or the named ones. Undefined for a picture without scores. */
export function captionVerdict(
  { best }: PictureResult,
  caption: string,
  titles: readonly string[],
): { won: boolean; text: string } | undefined {
  if (best.every((text) => text === undefined)) return undefined;
  const lost = titles.filter((_, model) => best[model] !== caption);
  if (!lost.length) return { won: true, text: "The caption won" };
  const where = titles.length > 1 ? ` with ${lost.join(" and ")}` : "";
  return { won: false, text: `The caption lost to a rival${where}` };
}

type Found = Map<string, Reading> | { error: string | undefined };

function pictures<A extends { results: readonly unknown[] }>(
  answers: readonly A[],
  find: (answer: A, place: number) => Found,
): PictureResult[] {
  return (answers[0]?.results ?? []).map((_, place) => {
    const found = answers.map((answer) => find(answer, place));
    const readings = found.map((each) => (each instanceof Map ? each : new Map<string, Reading>()));
    const failed = found.find((each) => !(each instanceof Map));
    const texts = new Set(readings.flatMap((each) => [...each.keys()]));
    const rows = [...texts].map((text) => ({ text, readings: readings.map((each) => each.get(text)) }));
    return {
      error: failed instanceof Map ? undefined : failed?.error,
      rows: rows.sort((one, other) => probabilityOf(other) - probabilityOf(one)),
      best: readings.map((each) => best(each)),
    };
  });
}

const probabilityOf = ({ readings: [first, second] }: Row) =>
  // A label that the first model does not list comes after those that it does.
  first ? 1 + first.probability : (second?.probability ?? 0);

function best(readings: Map<string, Reading>): string | undefined {
  let found: [string, Reading] | undefined;
  for (const each of readings) if (!found || each[1].score > found[1].score) found = each;
  return found?.[0];
}

/** What the matrix shows: a row for each text, and in it a number for each picture; null for a broken one. */
export type Measure = "texts" | "pictures" | "cosine";

export function matrix(texts: readonly string[], answer: Match, measure: Measure): (number | null)[][] {
  return texts.map((_, t) => {
    let read = 0; // the service leaves broken pictures out of a text's probabilities
    return answer.results.map((result) => {
      if ("error" in result) return null;
      if (measure === "texts") return result.probabilities[t] ?? null;
      if (measure === "cosine") return result.scores[t] ?? null;
      read += 1;
      return answer.text_probabilities?.[t]?.[read - 1] ?? null;
    });
  });
}

/** Whether a number is the largest of those that it is compared with: its row's for `pictures`, else its column's. */
export function isBest(table: (number | null)[][], measure: Measure, t: number, p: number): boolean {
  const value = table[t]?.[p];
  const rivals = measure === "pictures" ? (table[t] ?? []) : table.map((row) => row[p]);
  return value != null && rivals.every((rival) => rival == null || rival <= value);
}
