import type { Schemas } from "../../api/client";

export type Job = Schemas["JobInfo"];
export type Finetune = Schemas["FinetuneJobInfo"];
export type JobList = Schemas["JobList"];
export type Status = Schemas["JobStatus"];

/** Checks are listed only if they are asked for. */
export const KINDS = ["finetune", "evaluate", "check"] as const;
export const STATUSES = [
  "validating",
  "queued",
  "running",
  "pausing",
  "paused",
  "cancelling",
  "cancelled",
  "succeeded",
  "failed",
] as const satisfies Status[];

export const hasEnded = (status: Status) =>
  status === "cancelled" || status === "succeeded" || status === "failed";

export const titleOf = (job: Job) => job.name || job.id;

/** What the other one of a job and its control is. */
export const controlWord = ({ objective }: Finetune) =>
  objective === "clip" ? "the control" : "of this control";
