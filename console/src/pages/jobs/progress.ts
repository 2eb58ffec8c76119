/** How far a job is, in words. */

import { count, percent } from "../../format";
import { hasEnded, type Job } from "./job";

const WAITING: Partial<Record<Job["status"], string>> = {
  validating: "waiting for the check of its data",
  queued: "waiting for a worker",
  running: "starting: the worker loads the model and the data",
};
const STAGES: Record<string, string> = {
  starting: "starting: the worker loads the model and the data",
  loading: "loading the model and the data",
  evaluating: "measuring",
  writing: "writing the results",
  publishing: "saving the new version",
  promoting: "deciding whether to move the alias",
  checking: "reading every file of the data set",
};
/** What the stages count that take no steps. */
const UNITS: Record<string, string> = {
  reading: "files",
  scoring: "items",
  "fitting the mapper": "images",
  validating: "images",
};

/** "40 % · step 12 of 30 · training", "85 % · 768 of 900 texts · encoding texts" */
export function progressLine(job: Job): string {
  const { share } = job.progress;
  return [share !== null && percent(share, 0), counts(job), stage(job)].filter(Boolean).join(" · ");
}

function counts(job: Job): string {
  const { step, steps } = job.progress;
  if (steps === null) return "";
  const unit = UNITS[job.stage ?? ""] ?? /^encoding (.+)$/.exec(job.stage ?? "")?.[1];
  if (job.kind === "finetune" && !unit) return `step ${count(step)} of ${count(steps)}`;
  return unit && !hasEnded(job.status) ? `${count(step)} of ${count(steps)} ${unit}` : "";
}

function stage(job: Job): string {
  if (hasEnded(job.status)) return "";
  if (job.stage === "training" && isTrained(job)) {
    return job.kind === "finetune" && job.validation_data
      ? "training is done: measuring on the validation data, and saving"
      : "training is done: saving";
  }
  const name = job.status === "running" ? job.stage : null;
  return name === null ? (WAITING[job.status] ?? "") : (STAGES[name] ?? name);
}

/** Whether the training has taken its last step, although its stage goes on. */
function isTrained({ progress: { step, steps } }: Job): boolean {
  return steps !== null && steps > 0 && step >= steps;
}

/** Seconds until the current stage ends, if the job runs and that is known. */
export function timeLeft(job: Job, now: number): number | undefined {
  if (job.status !== "running" || job.estimated_finish == null) return undefined;
  const left = job.estimated_finish - now;
  return left > 0 ? left : undefined;
}

/** Seconds that the job has run until now. The service counts those of a worker when it releases the job. */
export function runTime(job: Job, now: number): number {
  if (!["running", "pausing", "cancelling"].includes(job.status)) return job.run_time_s;
  const since = job.transitions?.findLast(({ to_status }) => to_status === "running")?.at;
  return job.run_time_s + (since === undefined ? 0 : Math.max(0, now - since));
}

/** "The job logs every 25 steps." */
export function pace(job: Job): string {
  const every = logEvery(job);
  return every ? `The job logs ${every === 1 ? "every step" : `every ${count(every)} steps`}.` : "";
}

/** When the curves of a job begin that has none. */
export function curvesBegin(job: Job): string {
  if (hasEnded(job.status)) return "The job ended before it logged its first step.";
  const every = logEvery(job);
  const { steps } = job.progress;
  if (!every) return "They begin when a worker has trained the first steps.";
  const first = steps !== null && steps < every ? `${count(steps)}, its last one` : count(every);
  return `${pace(job)} The first point comes at step ${first}.`;
}

/** Who works at a job that no worker names. */
export function nobody(job: Job): string {
  if (hasEnded(job.status)) return "The job has ended.";
  if (job.no_worker) return "No worker for this kind of job is running. Start one.";
  if (job.status === "paused") return "None, while the job is paused.";
  if (job.status !== "queued" && job.status !== "validating") return "A worker has taken the job.";
  return job.started_at === null
    ? "None has taken the job yet."
    : "None at the moment. A worker that is free takes the job when its turn comes.";
}

/** "2; without progress, 3 at most" */
export function attempts(job: Job): string {
  const most = `without progress, ${job.max_attempts} at most`;
  return job.attempt ? `${job.attempt}; ${most}` : `None yet since its last progress; ${most}`;
}

function logEvery(job: Job): number {
  return job.kind === "finetune" ? Number(job.hyperparameters.log_every) || 0 : 0;
}
