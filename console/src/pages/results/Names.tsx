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
export function DataName({ job, names }: { job: Evaluation; names: Names }) {
  return <a href={address(["data", job.data])}>{names.get(job.data) || job.data}</a>;
}

/** The names of data sets by their ids. */
export type Names = ReadonlyMap<string, string>;
