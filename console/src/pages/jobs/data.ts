import { api, ask, type Schemas } from "../../api/client";
import { readDatasets } from "../../api/datasets";
import { useLoaded } from "../../api/use";
import type { Job, JobList } from "./job";
import type { Datasets } from "./words";

const NONE: Datasets = new Map();

export function getJob(id: string): Promise<Job> {
  return ask(api.GET("/jobs/{job_id}", { params: { path: { job_id: id } } }));
}

export function listJobs(query: {
  kind?: Job["kind"];
  status?: Job["status"];
  name?: string;
  owner?: string;
  after?: string;
  limit: number;
}): Promise<JobList> {
  return ask(api.GET("/jobs", { params: { query } }));
}

/** The newest data sets by their ids, for the names of a list. */
export function useNewestDatasets(): Datasets {
  const { data } = useLoaded(() => ask(api.GET("/datasets", { params: { query: { limit: 100 } } })), []);
  return data ? new Map(data.data.map((each) => [each.id, each])) : NONE;
}

/** The data sets that a job names, as far as they still exist. */
export function datasetsOf(job: Job): Promise<Datasets> {
  const named =
    job.kind === "evaluate"
      ? [job.data]
      : [job.training_data, job.validation_data, ...job.evaluate.map(({ data }) => String(data))];
  return readDatasets([...new Set(named.filter((id) => id !== null))]);
}

export type Worker = Schemas["WorkerInfo"];
