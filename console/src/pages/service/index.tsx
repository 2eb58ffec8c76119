import { api, ask, type Schemas } from "../../api/client";
import { useLoaded } from "../../api/use";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { shortId } from "../../format";

type Served = Schemas["NameStatus"] & { host: string; pid: number; process: string };

const COLUMNS: Column<Served>[] = [
  { name: "Name", cell: (served) => served.name },
  {
    name: "Version",
    cell: ({ version }) => (version ? <code title={version}>{shortId(version)}</code> : "none"),
  },
  { name: "Since", cell: (served) => <Time at={served.since} /> },
  { name: "Process", cell: (served) => `${served.host}, ${served.pid}` },
];

export function ServicePage() {
  const status = useLoaded(() => ask(api.GET("/models/status")), [], 5);
  const served = status.data?.processes.flatMap((process) =>
    process.models.map((model) => ({ ...model, ...process, name: model.name })),
  );
  return (
    <div class="page">
      <h1>Service</h1>
      <ErrorNote error={status.error} onRetry={status.reload} />
      {served ? (
        <Table
          caption="What each process serves"
          columns={COLUMNS}
          rows={served}
          keyOf={(each) => `${each.process} ${each.name}`}
        />
      ) : (
        !status.error && <Skeleton lines={4} />
      )}
    </div>
  );
}
