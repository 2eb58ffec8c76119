/** What the pages of results load. */

import { ApiError } from "../../api/errors";
import { getJob, listJobs } from "../jobs/data";
import { type Evaluation, measuredBy } from "./figures";

const PAGE = 50;

/** What the jobs that have succeeded have measured, newest first. Jobs that have measured nothing are passed over. */
export async function listEvaluations(last?: Evaluation): Promise<{ data: Evaluation[]; has_more: boolean }> {
  let after = last?.id;
  for (;;) {
    const query = { status: "succeeded", limit: PAGE, ...(after && { after }) } as const;
    const { data, has_more } = await listJobs(query);
    const found = data.flatMap(measuredBy);
    if (found.length || !has_more) return { data: found, has_more };
    after = data.at(-1)?.id;
  }
}

/** All that a job has measured. */
export async function getEvaluations(id: string): Promise<readonly [Evaluation, ...Evaluation[]]> {
  const [first, ...others] = measuredBy(await getJob(id));
  if (first) return [first, ...others];
  throw new ApiError(`The job ${id} has measured nothing.`, 404, "not_an_evaluation");
}

/** What a job has measured, by its name in a fine-tuning job's result, or else the first. */
export async function getEvaluation(id: string, on: string | undefined): Promise<Evaluation> {
  const measured = await getEvaluations(id);
  return measured.find((each) => each.on === on) ?? measured[0];
}
