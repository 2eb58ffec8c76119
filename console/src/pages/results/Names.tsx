import { type Datasets, dataName } from "../../api/datasets";
import { shortId } from "../../format";
import { address } from "../../router";
import { VersionLink } from "../versions/names";
import { type Evaluation, modelOf } from "./figures";

/** The model that was measured; a version leads to its page. */
export function ModelName({ job }: { job: Evaluation }) {
  const model = modelOf(job);
  if (shortId(model) === model) return <>{model}</>;
  return <VersionLink id={model} />;
}

/** The data that were measured on, by their name if they have one. */
export function DataName({ job, datasets }: { job: Evaluation; datasets: Datasets }) {
  return <a href={address(["data", job.data])}>{dataName(job.data, datasets)}</a>;
}
