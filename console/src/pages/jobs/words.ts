/** What a job does, in a sentence and in a few words. */

import { type Datasets, dataName } from "../../api/datasets";
import { count, counted, shortId, words } from "../../format";
import { titleOf } from "../results/words";
import type { Finetune, Job } from "./job";

const TRAINED: Record<string, string> = {
  layernorm: "the LayerNorms of",
  batchnorm: "the LayerNorms and BatchNorms of",
  all: "all weights of",
  "text-map": "a map after the text tower of",
  lora: "LoRA beside the weights of",
};
const RIVALS: Record<string, string> = {
  data: "that the data give",
  swap: "with words swapped",
  move: "with an attribute given to another noun",
  replace: "with words replaced",
  shuffle: "with words in another order",
  made: "with words swapped, moved, replaced or shuffled",
};
const TERMS: Record<string, string> = {
  intra_modal_weight: "CE-CLIP’s intra-modal contrast",
  rank_weight: "CE-CLIP’s ranking loss",
  paraphrase_weight: "an alignment of an image’s captions",
  feature_distillation_weight: "the distance of the features to the base’s",
  similarity_distillation_weight: "the distance of the similarities to the base’s",
};
const BENCHMARKS: Record<string, string> = {
  winoground: "Winoground",
  "zero-shot": "zero-shot classification",
  retrieval: "retrieval",
};

/** "score with demo, on pairs", "winoground of default" */
export function brief(job: Job, datasets: Datasets): string {
  if (job.kind === "check") return `check of ${dataName(job.dataset, datasets)}`;
  if (job.kind === "evaluate") {
    const measured = job.scorer === "diffusion" ? job.teacher : job.model;
    return `${job.benchmark} of ${shortId(measured ?? "–")}, on ${dataName(job.data, datasets)}`;
  }
  const teacher = job.teacher ? ` with ${job.teacher}` : "";
  return `${job.objective}${teacher}, on ${dataName(job.training_data, datasets)}`;
}

export function sentence(job: Job, datasets: Datasets): string {
  if (job.kind === "check") return `Checks the data set ${owned(job.dataset, datasets)} before jobs use it.`;
  return job.kind === "finetune" ? trained(job, datasets) : measured(job, datasets);
}

function trained(job: Finetune, datasets: Datasets): string {
  const options = job.hyperparameters;
  const what = `${TRAINED[String(options.trainable)] ?? `${options.trainable} of`} ${shortId(job.base)}`;
  const length = options.steps
    ? counted(Number(options.steps), "step")
    : counted(Number(options.epochs), "epoch");
  const first = `Trains ${what} on ${owned(job.training_data, datasets)} for ${length} of ${count(
    Number(options.batch_size),
  )} pairs, by ${objective(job)}.`;
  return [first, ...further(job), ...afterwards(job)].join(" ");
}

/** By which losses, and who teaches. */
function objective(job: Finetune): string {
  const { negatives, negatives_loss, score_by, score_candidates } = job.hyperparameters;
  const rivals = RIVALS[String(negatives)] ?? `of the kind ${negatives}`;
  const hard =
    negatives === "none" || job.objective === "score"
      ? ""
      : ` and hard negative captions ${rivals}${negatives_loss === "contrast" ? ", in its contrast" : ""}`;
  const clip = `CLIP’s contrastive loss${hard}`;
  const teacher = `the teacher ${job.teacher ?? "–"}`;
  switch (job.objective) {
    case "clip":
      return `${clip} alone: a control, without a teacher`;
    case "sds-clip":
      return `${clip}, and by L_SDS: the error of ${teacher} when it denoises the mapped image embedding under its caption`;
    case "condition":
      return `${clip}, and by L_condition: the error of ${teacher} when it denoises an image under its own embedding`;
    case "noise-contrast":
      return `${clip}, and by L_noise: an image’s own embedding must lead ${teacher} to the truth, and away from what other embeddings lead to`;
    case "score": {
      const chooser = score_by === "base" ? "the base itself (a control)" : teacher;
      const shuffled = score_by === "shuffled" ? ", with its scores shuffled (a placebo)" : "";
      const among =
        score_candidates === "negatives" ? `the captions ${rivals}` : `each caption and rivals ${rivals}`;
      return `${clip}, and by distilling how ${chooser} chooses among ${among}${shuffled}`;
    }
    default:
      return `the objective ${job.objective}${job.teacher ? ` with ${teacher}` : ""}`;
  }
}

/** Other losses, what is kept, and devices. */
function further(job: Finetune): string[] {
  const terms = Object.keys(TERMS).filter((name) => Number(job.hyperparameters[name]) > 0);
  return [
    terms.length ? `Further losses are ${listed(terms.map((name) => TERMS[name] ?? name))}.` : "",
    kept(job.hyperparameters.alpha),
    job.devices > 1 ? `The job takes ${job.devices} devices.` : "",
  ].filter(Boolean);
}

function kept(alpha: unknown): string {
  if (alpha === "auto")
    return "The validation pairs choose how much of the way from the base to the trained weights is kept.";
  return Number(alpha ?? 1) < 1 ? `Of the way from the base to the trained weights, ${alpha} is kept.` : "";
}

function afterwards(job: Finetune): string[] {
  const benchmarks = [...new Set(job.evaluate.map(({ benchmark }) => benchmarkName(String(benchmark))))];
  const moves = {
    never: "",
    if_better: `moves ${job.alias} to it if it is better`,
    always: `moves ${job.alias} to it`,
  };
  const steps = [
    benchmarks.length ? `measures the new version on ${listed(benchmarks)}` : "",
    moves[job.promote],
  ];
  const then = steps
    .filter(Boolean)
    .join(", and ")
    .replace(/^moves (\S+) to it/, "moves $1 to the new version");
  return then ? [`Then it ${then}.`] : [];
}

function measured(job: Extract<Job, { kind: "evaluate" }>, datasets: Datasets): string {
  const where = `on ${benchmarkName(job.benchmark)} with the data set ${owned(job.data, datasets)}`;
  const compared = job.baseline ? `, and compares it with ${shortId(job.baseline)}` : "";
  return job.scorer === "diffusion"
    ? `Measures the teacher ${job.teacher ?? "–"} ${where}, by its denoising errors.`
    : `Measures ${shortId(job.model ?? "–")} ${where}${compared}.`;
}

function owned(id: string, datasets: Datasets): string {
  const owner = datasets.get(id)?.owner;
  return owner ? `${dataName(id, datasets)} (the data of ${owner})` : dataName(id, datasets);
}

/** "Group score", "Validation retrieval" */
export function figureTitle(name: string): string {
  return words(titleOf(name));
}

export const benchmarkName = (name: string) => BENCHMARKS[name] ?? name;
const listed = (names: string[]) =>
  names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : (names[0] ?? "");
