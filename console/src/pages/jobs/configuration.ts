/** The configuration of a job beside the defaults that the description of the API states. */

import type { Schemas } from "../../api/description";
import { shortId } from "../../format";
import type { Job } from "./job";

export interface Option {
  name: string;
  value: unknown;
  /** Undefined if there is none, so that the value had to be given. */
  usual: unknown;
  differs: boolean;
}

const OWN = {
  finetune: [
    "base", "teacher", "training_data", "validation_data", "objective", "seed", "evaluate", "promote", "alias", "thresholds",
  ],
  evaluate: ["model", "benchmark", "data", "scorer", "teacher", "baseline"],
  check: ["dataset"],
} as const; // biome-ignore format: a list

export function optionsOf(job: Job, schemas: Schemas): Option[] {
  const values = job as unknown as Record<string, unknown>;
  const own = OWN[job.kind].map((name) => [name, values[name]] as const);
  const of = (schema: string) => defaults(schemas, schema);
  if (job.kind === "evaluate") {
    const usual = of("EvaluateSpec");
    return [...own, ...Object.entries(job.options)].map(([name, value]) => option(name, value, usual[name]));
  }
  if (job.kind === "check") return own.map(([name, value]) => option(name, value, undefined));
  const spec: Record<string, unknown> = { ...of("FinetuneSpec"), thresholds: of("Thresholds") };
  const hyper = of("Hyperparameters");
  return [
    ...own.map(([name, value]) => option(name, value, spec[name])),
    ...Object.entries(job.hyperparameters).map(([name, value]) => option(name, value, hyper[name])),
  ];
}

function option(name: string, value: unknown, usual: unknown): Option {
  return {
    name,
    value,
    usual,
    differs: usual !== undefined && JSON.stringify(value) !== JSON.stringify(usual),
  };
}

function defaults(schemas: Schemas, name: string): Record<string, unknown> {
  const properties = Object.entries(schemas[name]?.properties ?? {});
  return Object.fromEntries(properties.map(([key, { default: usual }]) => [key, usual]));
}

/** As a person reads it in a table. */
export function written(value: unknown): string {
  if (value === undefined || value === null || value === "") return "–";
  if (Array.isArray(value)) return value.map(written).join("; ") || "–";
  if (typeof value === "object") {
    return Object.entries(value as object)
      .map(([name, each]) => `${name} ${written(each)}`)
      .join(", ");
  }
  return shortId(String(value));
}
