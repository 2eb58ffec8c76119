import { api, ask, type Schemas } from "../../api/client";
import { useLoaded } from "../../api/use";
import { StatusBadge } from "../../components/Badge";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";

type DataSet = Schemas["DatasetInfo"];

const COLUMNS: Column<DataSet>[] = [
  { name: "Data set", cell: (set) => set.name || set.id },
  { name: "Format", cell: (set) => set.format },
  { name: "Status", cell: (set) => <StatusBadge status={set.status} /> },
  { name: "Created", cell: (set) => <Time at={set.created_at} /> },
];

export function DataPage() {
  const sets = useLoaded(() => ask(api.GET("/datasets")), [], 15);
  return (
    <div class="page">
      <h1>Data</h1>
      <ErrorNote error={sets.error} onRetry={sets.reload} />
      {!sets.data ? (
        !sets.error && <Skeleton lines={8} />
      ) : sets.data.data.length ? (
        <Table
          caption="Data sets, newest first"
          columns={COLUMNS}
          rows={sets.data.data}
          keyOf={(set) => set.id}
        />
      ) : (
        <EmptyState title="There are no data sets yet.">
          <code>sds-clip datasets upload FOLDER</code> uploads one.
        </EmptyState>
      )}
    </div>
  );
}
