/** What the pages of results load. */

import { api, ask } from "../../api/client";
import { ApiError } from "../../api/errors";
import { useLoaded } from "../../api/use";
import type { Evaluation } from "./figures";
import type { Names } from "./Names";

const PAGE = 50;

/** Evaluations that have succeeded, newest first. */
export async function listEvaluations(last?: Evaluation) {
  const query = {
    kind: "evaluate",
    status: "succeeded",
    limit: PAGE,
    ...(last && { after: last.id }),
  } as const;
  const { data, has_more } = await ask(api.GET("/jobs", { params: { query } }));
  return { data: data.filter((job) => job.kind === "evaluate"), has_more };
}

export async function getEvaluation(id: string): Promise<Evaluation> {
  const job = await ask(api.GET("/jobs/{job_id}", { params: { path: { job_id: id } } }));
  if (job.kind === "evaluate") return job;
  throw new ApiError(
    `The job ${id} measured nothing by itself: it is no evaluation.`,
    404,
    "not_an_evaluation",
  );
}

export function useDataNames(): Names {
  const sets = useLoaded(() => ask(api.GET("/datasets", { params: { query: { limit: 100 } } })), []);
  return new Map(sets.data?.data.map(({ id, name }) => [id, name]));
}
