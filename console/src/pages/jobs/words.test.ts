import { expect, test } from "vitest";
import type { Finetune, Job } from "./job";
import { brief, sentence } from "./words";

const DATASETS = new Map([
  ["ds_1", { name: "pairs", owner: "alice" }],
  ["ds_2", { name: "", owner: "" }],
]);
const HYPER = { trainable: "layernorm", steps: 200, epochs: null, batch_size: 64, negatives: "none" };

function finetune(changes: Partial<Finetune>, options: Record<string, unknown> = {}): Job {
  return {
    kind: "finetune",
    base: "demo",
    teacher: "demo-teacher",
    training_data: "ds_2",
    objective: "sds-clip",
    evaluate: [],
    promote: "never",
    alias: "default",
    devices: 1,
    ...changes,
    hyperparameters: { ...HYPER, ...options },
  } as Job;
}

const evaluate = (changes: object) =>
  ({
    kind: "evaluate",
    benchmark: "winoground",
    data: "ds_1",
    scorer: "clip",
    teacher: null,
    baseline: null,
    ...changes,
  }) as Job;

test.each([
  [
    "negatives of four kinds, further losses, two devices",
    finetune(
      { objective: "clip", teacher: null, devices: 2 },
      {
        trainable: "lora",
        negatives: "made",
        intra_modal_weight: 0.2,
        rank_weight: 0.4,
        paraphrase_weight: 0,
        alpha: 0.5,
      },
    ),
    "Trains LoRA beside the weights of demo on ds_2 for 200 steps of 64 pairs, by CLIP’s contrastive loss and hard negative captions with words swapped, moved, replaced or shuffled alone: a control, without a teacher. Further losses are CE-CLIP’s intra-modal contrast and CE-CLIP’s ranking loss. Of the way from the base to the trained weights, 0.5 is kept. The job takes 2 devices.",
  ],
  [
    "the control",
    finetune({ objective: "clip", teacher: null }),
    "Trains the LayerNorms of demo on ds_2 for 200 steps of 64 pairs, by CLIP’s contrastive loss alone: a control, without a teacher.",
  ],
  [
    "SDS-CLIP on somebody's data",
    finetune({ training_data: "ds_1" }),
    "Trains the LayerNorms of demo on pairs (the data of alice) for 200 steps of 64 pairs, by CLIP’s contrastive loss, and by L_SDS: the error of the teacher demo-teacher when it denoises the mapped image embedding under its caption.",
  ],
  [
    "condition, with hard negatives",
    finetune({ objective: "condition" }, { trainable: "all", negatives: "swap", negatives_loss: "choice" }),
    "Trains all weights of demo on ds_2 for 200 steps of 64 pairs, by CLIP’s contrastive loss and hard negative captions with words swapped, and by L_condition: the error of the teacher demo-teacher when it denoises an image under its own embedding.",
  ],
  [
    "noise-contrast",
    finetune({ objective: "noise-contrast" }),
    "Trains the LayerNorms of demo on ds_2 for 200 steps of 64 pairs, by CLIP’s contrastive loss, and by L_noise: an image’s own embedding must lead the teacher demo-teacher to the truth, and away from what other embeddings lead to.",
  ],
  [
    "score",
    finetune({ objective: "score" }, { negatives: "swap", score_by: "teacher", score_candidates: "all" }),
    "Trains the LayerNorms of demo on ds_2 for 200 steps of 64 pairs, by CLIP’s contrastive loss, and by distilling how the teacher demo-teacher chooses among each caption and rivals with words swapped.",
  ],
  [
    "score with shuffled scores",
    finetune({ objective: "score" }, { negatives: "swap", score_by: "shuffled", score_candidates: "all" }),
    "Trains the LayerNorms of demo on ds_2 for 200 steps of 64 pairs, by CLIP’s contrastive loss, and by distilling how the teacher demo-teacher chooses among each caption and rivals with words swapped, with its scores shuffled (a placebo).",
  ],
  [
    "score by the base, for epochs",
    finetune(
      { objective: "score", teacher: null },
      { steps: null, epochs: 1, negatives: "data", score_by: "base", score_candidates: "negatives" },
    ),
    "Trains the LayerNorms of demo on ds_2 for 1 epoch of 64 pairs, by CLIP’s contrastive loss, and by distilling how the base itself (a control) chooses among the captions that the data give.",
  ],
])("a job of the objective %s is told", (_, job, told) => expect(sentence(job, DATASETS)).toBe(told));

test("what comes after the training is told", () => {
  const evaluations = [{ benchmark: "winoground" }, { benchmark: "zero-shot" }, { benchmark: "winoground" }];
  const end = (changes: Partial<Finetune>) =>
    sentence(finetune({ objective: "clip", ...changes }), DATASETS).split("teacher. ")[1];
  expect(end({})).toBeUndefined();
  expect(end({ evaluate: evaluations, promote: "if_better" })).toBe(
    "Then it measures the new version on Winoground and zero-shot classification, and moves default to it if it is better.",
  );
  expect(end({ promote: "always" })).toBe("Then it moves default to the new version.");
});

test("an evaluation is told, by CLIP or by a teacher", () => {
  expect(sentence(evaluate({ model: "a".repeat(64), baseline: "demo" }), DATASETS)).toBe(
    "Measures aaaaaaaaaaaa on Winoground with the data set pairs (the data of alice), and compares it with demo.",
  );
  expect(sentence(evaluate({ scorer: "diffusion", teacher: "sd", data: "ds_2" }), DATASETS)).toBe(
    "Measures the teacher sd on Winoground with the data set ds_2, by its denoising errors.",
  );
});

test("a list has room for a few words", () => {
  expect(brief(finetune({ training_data: "ds_1" }), DATASETS)).toBe("sds-clip with demo-teacher, on pairs");
  expect(brief(evaluate({ model: "default", data: "ds_gone" }), DATASETS)).toBe(
    "winoground of default, on ds_gone",
  );
});
