import { api, ask } from "../../api/client";
import { type Datasets, readDatasets } from "../../api/datasets";
import type { Finetune, Job, JobList } from "./job";

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

/** The control of a job, or the jobs that it is the control of. */
export async function controlsOf(job: Job): Promise<Finetune[]> {
  const named = [job.metadata.control, job.name && `${job.name}-control`, job.metadata.control_of];
  const asked = [...new Set(named.filter((name): name is string => typeof name === "string" && name !== ""))];
  const found = await Promise.all(
    asked.map((name) => (name.startsWith("job_") ? getJob(name).catch(() => undefined) : byName(name))),
  );
  const others = found.flatMap((each) => (each?.kind === "finetune" && each.id !== job.id ? [each] : []));
  return [...new Map(others.map((each) => [each.id, each])).values()];
}

/** Without asking for a job that may not exist. */
async function byName(name: string): Promise<Job | undefined> {
  const { data } = await listJobs({ name, kind: "finetune", limit: 20 });
  return data.find((job) => job.name === name);
}

/** The data sets that a job names, as far as they still exist. */
export function datasetsOf(job: Job): Promise<Datasets> {
  if (job.kind === "check") return readDatasets([job.dataset]);
  const named =
    job.kind === "evaluate"
      ? [job.data]
      : [job.training_data, job.validation_data, ...job.evaluate.map(({ data }) => String(data))];
  return readDatasets([...new Set(named.filter((id) => id !== null))]);
}
