import { useState } from "preact/hooks";
import { fetchSchemas } from "../../api/description";
import { useLoaded } from "../../api/use";
import { Badge } from "../../components/Badge";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { Table } from "../../components/Table";
import { type Option, optionsOf, written } from "./configuration";
import type { Job } from "./job";

/** Every option of a job, with what differs from the default marked. */
export function Configuration({ job }: { job: Job }) {
  const [isAll, setAll] = useState(false);
  const { data, error, reload } = useLoaded(fetchSchemas, []);
  const options = data && optionsOf(job, data);
  const differing = options?.filter(({ differs, usual }) => differs || usual === undefined);
  return (
    <section class="stack close" aria-label="Configuration">
      <div class="row apart">
        <h2>Configuration</h2>
        <label class="row">
          <input type="checkbox" checked={isAll} onChange={() => setAll(!isAll)} />
          Show defaults, too
        </label>
      </div>
      <ErrorNote error={error} onRetry={reload} />
      {options && differing ? (
        <Table
          caption="Options of the job"
          columns={COLUMNS}
          rows={isAll ? options : differing}
          keyOf={(option) => option.name}
        />
      ) : (
        !error && <Skeleton lines={5} />
      )}
    </section>
  );
}

const COLUMNS = [
  { name: "Option", cell: ({ name }: Option) => <code>{name}</code> },
  {
    name: "Value",
    cell: ({ value, differs }: Option) => (
      <span class={`job-value ${differs ? "job-differs" : ""}`}>
        {written(value)} {differs && <Badge tone="accent">changed</Badge>}
      </span>
    ),
  },
  {
    name: "Default",
    cell: ({ usual }: Option) => (
      <span class="muted nowrap">{usual === undefined ? "required" : written(usual)}</span>
    ),
  },
];
