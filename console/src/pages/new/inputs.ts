import { type Schemas as Api, api, ask } from "../../api/client";
import { fetchSchemas } from "../../api/description";
import { may } from "../../api/session";
import { count } from "../../format";
import type { Draft, Job, Kind } from "./draft";
import { draftOf, EMPTY } from "./draft";
import { type FieldSpec, readFields } from "./schema";

export const PAIRS = "pairs";
const FIRST_STEPS = "200";
const DATA_FIELDS = ["training_data", "validation_data", "data"];

/** What a form for a job offers. */
export interface Inputs {
  fields: Record<Kind, FieldSpec[]>;
  datasets: Api["DatasetInfo"][];
  /** Data sets that cannot be chosen yet. */
  checking: Api["DatasetInfo"][];
  /** Undefined for a key that may not list models. */
  models: Awaited<ReturnType<typeof listModels>> | undefined;
  workers: Api["WorkerInfo"][];
  /** The job that is duplicated. */
  from: Job | undefined;
}

export async function loadInputs(from: string | null): Promise<Inputs> {
  const [schemas, datasets, checking, models, workers, job] = await Promise.all([
    fetchSchemas(),
    listData("ready"),
    listData("validating"),
    may("infer") ? listModels() : undefined,
    ask(api.GET("/workers")),
    from ? ask(api.GET("/jobs/{job_id}", { params: { path: { job_id: from } } })) : undefined,
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

function listModels() {
  return ask(api.GET("/models", { params: { query: { limit: 100 } } }));
}

/** What the form begins with: a job to duplicate, or the newest data and the first teacher. */
export function firstDraft(kind: Kind, inputs: Inputs, query: URLSearchParams): Draft {
  if (inputs.from?.kind === kind) return withIds(inputs, draftOf(inputs.fields[kind], inputs.from));
  const newest = inputs.datasets.find((each) => fits(kind, each));
  const data = query.get("data") ?? newest?.id ?? "";
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

/** A job may name its data sets by their names, and the pickers know them by their ids. */
function withIds(inputs: Inputs, draft: Draft): Draft {
  const ids = DATA_FIELDS.flatMap((path) => {
    const found = inputs.datasets.find(({ name }) => name && name === draft.values[path]);
    return found ? [[path, found.id]] : [];
  });
  return { ...draft, values: { ...draft.values, ...Object.fromEntries(ids) } };
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
