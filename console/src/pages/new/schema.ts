/**
 * The fields of a job's form, read from the JSON schema of its request in the service's OpenAPI description.
 *
 * A field is known by the dotted path that the service's errors name in `param`, such as `hyperparameters.lr`.
 */

import type { Schema, Schemas } from "../../api/description";
import { capital } from "../../format";

export type Value = string | number | boolean | null;

export interface FieldSpec {
  path: string;
  name: string;
  kind: "choice" | "flag" | "integer" | "number" | "text";
  /** The values of a choice, without the null of an optional one. */
  choices: string[];
  /** Whether it may be null. */
  optional: boolean;
  required: boolean;
  default: Value;
  description: string;
  /** The numbers that are allowed, in words. It is empty without bounds. */
  bounds: string;
  limits: Limits;
  section: string;
}

type Limits = Pick<Schema, "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "pattern">;

export interface Section {
  title: string;
  fields: FieldSpec[];
}

/** The fields of a schema and of the objects in it, in their order. Lists and free mappings are left out. */
export function readFields(schemas: Schemas, name: string, within = ""): FieldSpec[] {
  const schema = schemas[name];
  return Object.entries(schema?.properties ?? {}).flatMap(([key, property]) => {
    const path = within + key;
    if (property.$ref) return readFields(schemas, property.$ref.split("/").at(-1) ?? "", `${path}.`);
    const field = readField(path, key, property, schema?.required?.includes(key) ?? false);
    return field ? [field] : [];
  });
}

export function sections(fields: readonly FieldSpec[]): Section[] {
  const found = new Map<string, FieldSpec[]>();
  for (const field of fields) found.set(field.section, [...(found.get(field.section) ?? []), field]);
  return [...found].map(([title, of]) => ({ title, fields: of }));
}

/** What a description says of one choice: the sentence that begins with it, without it. Empty if there is none. */
export function meaningOf(description: string, choice: string): string {
  const sentence = sentences(description).find((each) => each.startsWith(`\`${choice}\` `));
  if (!sentence) return "";
  return capital(sentence.slice(choice.length + 3).replace(/^is /, ""));
}

/** What is wrong with a text by the description alone, or undefined. The service may find more. */
export function wrongIn({ kind, optional, bounds, limits }: FieldSpec, text: string): string | undefined {
  const trimmed = text.trim();
  if (!trimmed && optional) return undefined;
  if (kind === "text") {
    const isForm = !text || !limits.pattern || new RegExp(limits.pattern, "u").test(text);
    return isForm ? undefined : "This text has a form that is not allowed here.";
  }
  if (kind !== "integer" && kind !== "number") return undefined;
  const value = trimmed ? Number(trimmed) : Number.NaN;
  const { minimum = -Infinity, maximum = Infinity } = limits;
  const { exclusiveMinimum: above = -Infinity, exclusiveMaximum: below = Infinity } = limits;
  const isWithin = value >= minimum && value <= maximum && value > above && value < below;
  if (isWithin && (kind === "number" || Number.isInteger(value))) return undefined;
  return `Enter a ${kind === "integer" ? "whole number" : "number"}${bounds && `, ${bounds}`}.`;
}

function readField(path: string, name: string, schema: Schema, required: boolean): FieldSpec | undefined {
  const given = (schema.anyOf ?? [schema]).filter(({ type }) => type !== "null");
  // A number that may also be a word, such as `auto`, is asked for as a number.
  const branches = given.length > 1 ? given.filter((each) => each.const === undefined) : given;
  const [branch] = branches;
  const kind = branch && branches.length === 1 ? kindOf(branch) : undefined;
  if (!branch || !kind) return undefined;
  return {
    path,
    name,
    kind,
    choices: (branch.enum ?? (branch.const === undefined ? [] : [branch.const])).map(String),
    optional: Boolean(schema.anyOf?.some(({ type }) => type === "null")),
    required,
    default: (schema.default ?? null) as Value,
    description: (schema.description ?? "").replace(/(?<!\n)\n(?!\n)/g, " "),
    bounds: boundsOf(branch),
    limits: branch,
    section: schema["x-section"] ?? "Other",
  };
}

function kindOf({ type, enum: choices, const: only }: Schema): FieldSpec["kind"] | undefined {
  if (choices || only !== undefined) return "choice";
  if (type === "boolean") return "flag";
  if (type === "integer" || type === "number") return type;
  return type === "string" ? "text" : undefined;
}

function boundsOf({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: Schema): string {
  const parts = [
    minimum === undefined
      ? ""
      : maximum === undefined
        ? `at least ${minimum}`
        : `from ${minimum} to ${maximum}`,
    exclusiveMinimum === undefined ? "" : `above ${exclusiveMinimum}`,
    maximum === undefined || minimum !== undefined ? "" : `at most ${maximum}`,
    exclusiveMaximum === undefined ? "" : `below ${exclusiveMaximum}`,
  ];
  return parts.filter(Boolean).join(", ");
}

function sentences(description: string): string[] {
  return description.split(/(?<=\.)\s+/);
}
