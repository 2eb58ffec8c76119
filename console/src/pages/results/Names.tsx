import { type Datasets, dataName } from "../../api/datasets";
import { shortId } from "../../format";
import { address } from "../../router";
import { type Evaluation, modelOf } from "./figures";

/** The model that was measured; a version leads to its page. */
export function ModelName({ job }: { job: Evaluation }) {
  const model = modelOf(job);
  const short = shortId(model);
  if (short === model) return <>{model}</>;
  return (
    <a href={address(["versions", model])} title={model}>
      <code>{short}</code>
    </a>
  );
}

/** The data that were measured on, by their name if they have one. */
export function DataName({ job, datasets }: { job: Evaluation; datasets: Datasets }) {
  return <a href={address(["data", job.data])}>{dataName(job.data, datasets)}</a>;
}
