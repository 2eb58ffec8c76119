/** What may be done with a job in its status, as the service allows it (app/store/states.py). */

import { hasEnded, type Job, type Status } from "./job";

export type Verb = "cancel" | "pause" | "resume" | "retry" | "delete";

const ALLOWED: Record<Exclude<Verb, "delete">, readonly Status[]> = {
  cancel: ["validating", "queued", "running", "pausing", "paused"],
  pause: ["queued", "running"],
  resume: ["paused"],
  retry: ["failed", "cancelled"],
};
const WHEN: Record<Exclude<Verb, "delete">, string> = {
  cancel: "Only a job that has not ended can be cancelled",
  pause: "Only a job that runs or waits in the queue can be paused",
  resume: "Only a paused job can be resumed",
  retry: "Only a failed or cancelled job can be retried",
};

/** Why the job does not allow it, or undefined if it does. */
export function refusal(verb: Verb, job: Pick<Job, "status" | "files_removed_at">): string | undefined {
  if (verb !== "delete") {
    return ALLOWED[verb].includes(job.status) ? undefined : `${WHEN[verb]}. This one is ${job.status}.`;
  }
  if (!hasEnded(job.status)) return "Cancel the job first: its files are in use until it has ended.";
  return job.files_removed_at === null ? undefined : "The job’s files are already deleted.";
}

/** The two buttons that fit the status best: what stops or continues the job. */
export function offered(status: Status): readonly [Verb, Verb] {
  if (hasEnded(status)) return ["retry", "delete"];
  return [status === "paused" ? "resume" : "pause", "cancel"];
}
