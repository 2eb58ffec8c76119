/** What the form holds, and the request that it becomes. */

import type { Schemas as Api } from "../../api/client";
import type { Problem } from "../../api/errors";
import { type FieldSpec, type Value, wrongIn } from "./schema";

export type Kind = "finetune" | "evaluate";

/** What was typed, by the paths of the fields. A field that is not here has its default. */
export type Values = Readonly<Record<string, string>>;

export interface Draft {
  values: Values;
  /** The benchmarks after the training. */
  evaluate: readonly { benchmark: string; data: string }[];
  metadata: Readonly<Record<string, string>>;
  control: boolean;
}

export type Body = { [name: string]: unknown };
export type Job = Api["FinetuneJobInfo"] | Api["EvaluateJobInfo"];

export const EMPTY: Draft = { values: {}, evaluate: [], metadata: {}, control: false };

/** The notes by which a job and its control refer to each other. */
export const CONTROL = "control";
export const CONTROL_OF = "control_of";

const MAX_NAME = 64;
const SUFFIX = "-control";
/** A copy has a name of its own. A job that does not tell its request has the operator's limit as its own. */
const NOT_COPIED = new Set(["name", "dry_run", "max_run_time_s"]);
/** What a request may name by an alias or a name, which can mean something else by now. The job has what it meant. */
const RESOLVED = new Set(["base", "model", "baseline", "training_data", "validation_data", "data"]);

/**
 * The value of what was typed. What is no number is passed on as it is, so that the service says what is wrong with it.
 */
export function read(field: FieldSpec, text: string): Value {
  const trimmed = text.trim();
  if (!trimmed && field.optional) return null;
  if (field.kind === "flag") return trimmed === "true";
  const isNumber = field.kind === "integer" || field.kind === "number";
  if (isNumber && trimmed && Number.isFinite(Number(trimmed))) return Number(trimmed);
  return isNumber ? trimmed : text;
}

/** A value as its control shows it. */
export function shown(value: unknown): string {
  return value == null ? "" : String(value);
}

export function textOf(field: FieldSpec, values: Values): string {
  return values[field.path] ?? shown(field.default);
}

export function isChanged(field: FieldSpec, values: Values): boolean {
  const text = values[field.path];
  return text !== undefined && read(field, text) !== field.default;
}

/** The request: what differs from the defaults. */
export function bodyOf(fields: readonly FieldSpec[], draft: Draft): Body {
  const body: Body = {};
  for (const field of fields) {
    if (isChanged(field, draft.values)) put(body, field.path, read(field, draft.values[field.path] ?? ""));
  }
  if (draft.evaluate.length) body.evaluate = draft.evaluate;
  if (Object.keys(draft.metadata).length) body.metadata = draft.metadata;
  return body;
}

/** The control: the same data, order, steps and seed without the teacher. It moves no alias. */
export function controlOf(body: Body): Body {
  const { teacher: _, promote: __, alias: ___, thresholds: ____, ...same } = body;
  const name = shown(body.name);
  return {
    ...same,
    objective: "clip",
    name: name.slice(0, MAX_NAME - SUFFIX.length) + SUFFIX,
    metadata: { ...(body.metadata as object | undefined), [CONTROL_OF]: name },
  };
}

export function withControl(body: Body, controlId: string): Body {
  return { ...body, metadata: { ...(body.metadata as object | undefined), [CONTROL]: controlId } };
}

/** A name for a job that was given none, so that its control can refer to it. */
export function proposedName(objective: string, now: Date): string {
  const at = now.toISOString().replace(/\..*/, "").replace(/[-:]/g, "").replace("T", "-");
  return `${objective}-${at}`;
}

/**
 * The draft that would submit the same job again under another name: by its request, or else by what it became.
 *
 * Models and data are those that the job used.
 */
export function draftOf(fields: readonly FieldSpec[], job: Job): Draft {
  const { request } = job as { request?: Body | null };
  const values: Record<string, string> = {};
  for (const field of fields) {
    const copied = !NOT_COPIED.has(field.path) || (request && field.path === "max_run_time_s");
    const source = RESOLVED.has(field.path) ? job : (request ?? job);
    const value = copied ? valueIn(source, field.path) : undefined;
    if (value !== undefined && value !== field.default) values[field.path] = shown(value);
  }
  if (job.name) values.name = nextName(job.name);
  const { [CONTROL]: control, [CONTROL_OF]: _, ...metadata } = job.metadata as Record<string, string>;
  return {
    values,
    evaluate: job.kind === "finetune" ? (job.evaluate as { benchmark: string; data: string }[]) : [],
    metadata,
    control: control !== undefined,
  };
}

/**
 * Whether an error is at a field, or at an item of it. One of several options together has their group as its `param`,
 * and names them in its message.
 */
export function isAt({ param, message }: Problem, path: string): boolean {
  if (param?.split("[")[0] === path) return true;
  const [group, name] = path.split(".");
  return name !== undefined && param === group && message.split(/[^\w]+/).includes(name);
}

/** What the service says is wrong, and what the form sees by itself in fields of which the service says nothing. */
export function problemsIn(
  fields: readonly FieldSpec[],
  values: Values,
  told: readonly Problem[],
): Problem[] {
  const own = fields.flatMap((field) => {
    const message = wrongIn(field, textOf(field, values));
    const isTold = told.some((each) => isAt(each, field.path));
    return message && isChanged(field, values) && !isTold ? [{ message, param: field.path }] : [];
  });
  return [...told, ...own];
}

/** "run" as "run-2", and "run-2" as "run-3". */
export function nextName(name: string): string {
  const [, stem = name, number = "1"] = name.match(/^(.*)-(\d{1,6})$/) ?? [];
  const end = `-${Number(number) + 1}`;
  return stem.slice(0, MAX_NAME - end.length) + end;
}

function put(body: Body, path: string, value: Value): void {
  const [name = "", ...rest] = path.split(".");
  if (!rest.length) {
    body[name] = value;
    return;
  }
  body[name] ??= {};
  put(body[name] as Body, rest.join("."), value);
}

/** An evaluation has some of its fields in `options`. */
function valueIn(source: Body | Job, path: string): unknown {
  const of = (where: unknown) =>
    path.split(".").reduce<unknown>((found, name) => (found as Body | undefined)?.[name], where);
  return of(source) ?? of((source as Body).options);
}
