import { api, ask, type Schemas } from "../../api/client";
import { useLoaded } from "../../api/use";
import { Badge, StatusBadge } from "../../components/Badge";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { bytes, shortId } from "../../format";

type Version = Schemas["VersionInfo"];

const COLUMNS: Column<Version>[] = [
  { name: "Version", cell: (version) => <code title={version.id}>{shortId(version.id)}</code> },
  {
    name: "Aliases",
    cell: (version) => (
      <span class="row">
        {version.aliases.map((alias) => (
          <Badge key={alias} tone="accent">
            {alias}
          </Badge>
        ))}
      </span>
    ),
  },
  { name: "Status", cell: (version) => <StatusBadge status={version.status} /> },
  { name: "Based on", cell: (version) => version.base ?? "–" },
  { name: "Size", number: true, cell: (version) => bytes(version.size_bytes) },
  { name: "Created", cell: (version) => <Time at={version.created_at} /> },
];

export function VersionsPage() {
  const models = useLoaded(() => ask(api.GET("/models")), [], 15);
  return (
    <div class="page">
      <h1>Versions</h1>
      <ErrorNote error={models.error} onRetry={models.reload} />
      {!models.data ? (
        !models.error && <Skeleton lines={8} />
      ) : models.data.versions?.length ? (
        <Table
          caption="Versions, newest first"
          columns={COLUMNS}
          rows={models.data.versions}
          keyOf={(version) => version.id}
        />
      ) : (
        <EmptyState title="There are no versions yet.">A fine-tuning job that succeeds makes one.</EmptyState>
      )}
    </div>
  );
}
