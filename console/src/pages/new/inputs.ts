import { type Schemas as Api, api, ask } from "../../api/client";
import { fetchSchemas } from "../../api/description";
import { ApiError } from "../../api/errors";
import { may } from "../../api/session";
import { count } from "../../format";
import { getJob } from "../jobs/data";
import type { Draft, Job, Kind } from "./draft";
import { draftOf, EMPTY } from "./draft";
import { type FieldSpec, readFields } from "./schema";

export const PAIRS = "pairs";
const FIRST_STEPS = "200";

/** What a form for a job offers. */
export interface Inputs {
  fields: Record<Kind, FieldSpec[]>;
  datasets: Api["DatasetInfo"][];
  /** Data sets that cannot be chosen yet. */
  checking: Api["DatasetInfo"][];
  /** Undefined for a key that may not list models. */
  models: Awaited<ReturnType<typeof listModels>> | undefined;
  workers: Api["WorkerInfo"][];
  /** The job that is duplicated. Undefined if there is none with the given id or name, and for a check. */
  from: Job | undefined;
}

export async function loadInputs(from: string | null): Promise<Inputs> {
  const [schemas, datasets, checking, models, workers, job] = await Promise.all([
    fetchSchemas(),
    listData("ready"),
    listData("validating"),
    may("infer") ? listModels() : undefined,
    ask(api.GET("/workers")),
    from ? jobOf(from) : undefined,
  ]);
  return {
    fields: { finetune: readFields(schemas, "FinetuneSpec"), evaluate: readFields(schemas, "EvaluateSpec") },
    datasets: datasets.data,
    checking: checking.data,
    models,
    workers: workers.data,
    from: job,
  };
}

function listData(status: "ready" | "validating") {
  return ask(api.GET("/datasets", { params: { query: { status, limit: 100 } } }));
}

async function jobOf(id: string): Promise<Job | undefined> {
  try {
    const job = await getJob(id);
    return job.kind === "check" ? undefined : job;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined;
    throw error;
  }
}

function listModels() {
  return ask(api.GET("/models", { params: { query: { limit: 100 } } }));
}

/**
 * What the form begins with: a job to duplicate, or the first teacher and what the address names.
 *
 * No data are chosen for the reader: the newest could be those that are held out.
 */
export function firstDraft(kind: Kind, inputs: Inputs, query: URLSearchParams): Draft {
  if (inputs.from?.kind === kind) {
    const copy = draftOf(inputs.fields[kind], inputs.from);
    const model = query.get("model");
    return model === null ? copy : { ...copy, values: { ...copy.values, model } };
  }
  const data = query.get("data") ?? "";
  const given: Record<string, string> =
    kind === "finetune"
      ? {
          training_data: data,
          base: query.get("model") ?? "default",
          teacher: inputs.models?.teachers?.[0] ?? "",
          "hyperparameters.steps": FIRST_STEPS,
        }
      : {
          ...evaluated(inputs, data),
          model: query.get("model") ?? "default",
          baseline: query.get("baseline") ?? "",
        };
  return { ...EMPTY, values: given };
}

/** Whether a job of this kind can use data of a format: one trains on pairs, the other measures on a benchmark. */
export function fits(kind: Kind, { format }: Api["DatasetInfo"]): boolean {
  return (format === PAIRS) === (kind === "finetune");
}

/** A benchmark's data set says by its format which benchmark it is. */
export function evaluated(inputs: Inputs, data: string): Record<string, string> {
  const found = inputs.datasets.find(({ id, name }) => id === data || name === data);
  return found ? { data: found.id, benchmark: found.format } : { data };
}

/** "my-pairs · 2,048 samples" */
export function describeData({ id, name, counts }: Api["DatasetInfo"]): string {
  const [what, size] = Object.entries(counts ?? {})[0] ?? [];
  return [name || id, what && `${count(size)} ${what}`].filter(Boolean).join(" · ");
}
