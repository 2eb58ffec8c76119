import { describe, expect, test } from "vitest";
import type { Job } from "./job";
import { attempts, curvesBegin, nobody, pace, progressLine, runTime, timeLeft } from "./progress";

const job = (fields: object) =>
  ({
    kind: "finetune",
    status: "running",
    stage: "training",
    validation_data: null,
    started_at: 100,
    estimated_finish: null,
    run_time_s: 0,
    attempt: 1,
    max_attempts: 3,
    no_worker: false,
    hyperparameters: { log_every: 25 },
    progress: { step: 12, steps: 30, share: 0.4 },
    ...fields,
  }) as unknown as Job;
const DONE = { step: 30, steps: 30, share: 1 };

describe("how far a job is", () => {
  test.each([
    [{}, "40 % · step 12 of 30 · training"],
    [{ progress: DONE }, "100 % · step 30 of 30 · training is done: saving"],
    [
      { progress: DONE, validation_data: "ds_1" },
      "100 % · step 30 of 30 · training is done: measuring on the validation data, and saving",
    ],
    [{ progress: DONE, stage: "publishing" }, "100 % · step 30 of 30 · saving the new version"],
    [
      { progress: { step: 1024, steps: 4096, share: 0.25 }, stage: "fitting the mapper" },
      "25 % · 1,024 of 4,096 images · fitting the mapper",
    ],
    [
      { stage: null, progress: { step: 0, steps: null, share: null } },
      "starting: the worker loads the model and the data",
    ],
    [
      { status: "queued", stage: null, progress: { step: 0, steps: null, share: null } },
      "waiting for a worker",
    ],
    [{ status: "succeeded", progress: DONE }, "100 % · step 30 of 30"],
  ])("says what is counted and what it does: %j", (fields, line) =>
    expect(progressLine(job(fields))).toBe(line),
  );

  test.each([
    ["encoding texts", "85 % · 768 of 900 texts · encoding texts"],
    ["scoring", "85 % · 768 of 900 items · scoring"],
    ["reading", "85 % · 768 of 900 files · reading"],
    ["writing", "85 % · writing the results"],
  ])("counts what an evaluation does while it is %s", (stage, line) => {
    const progress = { step: 768, steps: 900, share: 768 / 900 };
    expect(progressLine(job({ kind: "evaluate", stage, progress }))).toBe(line);
  });
});

test("only a running job has time left, as long as its stage is not late", () => {
  const left = (status: string, estimated_finish: number | null) =>
    timeLeft(job({ status, estimated_finish }), 100);
  expect([left("running", 130), left("running", 100), left("queued", 130), left("running", null)]).toEqual([
    30,
    undefined,
    undefined,
    undefined,
  ]);
});

test("the time that a job has run goes on while a worker has it", () => {
  const transitions = [
    { to_status: "running", at: 10 },
    { to_status: "paused", at: 40 },
    { to_status: "running", at: 100 },
  ];
  expect(runTime(job({ run_time_s: 30, transitions }), 160)).toBe(90);
  expect(runTime(job({ run_time_s: 30, transitions, status: "paused" }), 160)).toBe(30);
});

describe("a job without curves", () => {
  const begin = (fields: object) => curvesBegin(job(fields));

  test("says when its first point comes", () => {
    expect(begin({})).toBe("The job logs every 25 steps. The first point comes at step 25.");
    expect(begin({ progress: { step: 3, steps: 20, share: 0.1 } })).toBe(
      "The job logs every 25 steps. The first point comes at step 20, its last one.",
    );
    expect(pace(job({ hyperparameters: { log_every: 1 } }))).toBe("The job logs every step.");
  });

  test("has none if it ended before", () =>
    expect(begin({ status: "cancelled" })).toBe("The job ended before it logged its first step."));
});

test.each([
  [{ status: "queued", started_at: null }, "None has taken the job yet."],
  [{ status: "queued" }, "None at the moment. A worker that is free takes the job when its turn comes."],
  [{ status: "paused" }, "None, while the job is paused."],
  [{}, "A worker has taken the job."],
  [{ status: "failed" }, "The job has ended."],
])("who works at %j", (fields, words) => expect(nobody(job(fields))).toBe(words));

test("an attempt that is not under way has no number", () => {
  expect(attempts(job({}))).toBe("1; without progress, 3 at most");
  expect(attempts(job({ attempt: 0 }))).toBe("None yet since its last progress; without progress, 3 at most");
});
