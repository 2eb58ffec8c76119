/** What the form asks, sent to each of the chosen models. */

import { api, ask, form, type Schemas } from "../../api/client";
import { shortId } from "../../format";
import type { Shown } from "./Pictures";
import { ofClassify, ofMatch, type PictureResult } from "./results";

export interface Request {
  kind: "match" | "classify";
  pictures: readonly Shown[];
  /** Texts to match, or labels. */
  texts: string[];
  /** Of these texts, the one whose words the others swap. */
  caption: string | undefined;
  /** The name of a set, or one's own. */
  templates: string[];
  /** Names of one or two models; "" is the default one. */
  models: string[];
}

export interface Answer {
  request: Request;
  /** The models that answered. */
  titles: string[];
  results: PictureResult[];
  /** For the matrix, which a classification does not have. */
  matches: Schemas["MatchResponse"][];
}

export const TOP_K = 10;

/** Whether two requests send the same. */
export function isSame(one: Request, other: Request): boolean {
  return sent(one) === sent(other);
}

function sent({ kind, pictures, texts, caption, templates, models }: Request): string {
  const urls = pictures.map(({ url }) => url);
  return JSON.stringify([kind, urls, texts, caption, kind === "classify" && templates, models]);
}

export async function send(request: Request): Promise<Answer> {
  if (request.kind === "match") {
    const matches = await Promise.all(request.models.map((model) => match(request, model)));
    return { request, titles: matches.map(title), results: ofMatch(request.texts, matches), matches };
  }
  const classified = await Promise.all(request.models.map((model) => classify(request, model)));
  return { request, titles: classified.map(title), results: ofClassify(classified), matches: [] };
}

// The types have a file as text, since JSON carries it so.
type MatchBody = Schemas["MatchRequest"];
type ClassifyBody = Schemas["ClassifyRequest"];

function match({ pictures, texts }: Request, model: string) {
  const body = form({ images: files(pictures), texts, model: model || undefined, on_error: "skip" });
  return ask(api.POST("/match", { body: body as unknown as MatchBody }));
}

function classify({ pictures, texts, templates }: Request, model: string) {
  const body = form({
    images: files(pictures),
    labels: texts,
    templates,
    top_k: TOP_K,
    model: model || undefined,
    on_error: "skip",
  });
  return ask(api.POST("/classify", { body: body as unknown as ClassifyBody }));
}

const files = (pictures: readonly Shown[]) => pictures.map(({ file }) => file);

const title = ({ model: { name, version } }: { model: Schemas["ModelInfo"] }) =>
  name === version ? shortId(version) : `${name} (${shortId(version)})`;
