import type { Schemas } from "../../api/client";
import { Badge } from "../../components/Badge";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { useLiveRegistry } from "./live";
import { shortReference, VersionLink } from "./names";
import { nameOf } from "./rollout";

type Served = Schemas["NameStatus"] & { process: Schemas["ProcessStatus"] };

const COLUMNS: Column<Served>[] = [
  { name: "Process", cell: ({ process }) => nameOf(process) },
  { name: "Name", cell: ({ name }) => <span title={name}>{shortReference(name)}</span> },
  {
    name: "Serves",
    cell: ({ version }) => (version ? <VersionLink id={version} /> : <span class="muted">nothing yet</span>),
  },
  { name: "Since", cell: ({ since }) => <Time at={since} /> },
  { name: "State", cell: (served) => <State {...served} /> },
  { name: "Reported", cell: ({ process }) => <Time at={process.at} /> },
];

/** Which process serves what, since when, and what it could not load. */
export function Processes() {
  const { status } = useLiveRegistry();
  if (!status.data) {
    return status.error ? <ErrorNote error={status.error} onRetry={status.reload} /> : <Skeleton lines={4} />;
  }
  const rows = status.data.processes.flatMap((process) =>
    process.models.map((name) => ({ ...name, process })),
  );
  return (
    <Table
      caption="What each process serves"
      columns={COLUMNS}
      rows={rows}
      keyOf={({ process, name }) => `${process.process} ${name}`}
    />
  );
}

function State({ wanted_version, version, loading, last_failed_load, from_copy, alone, process }: Served) {
  const isCurrent = !wanted_version || wanted_version === version;
  return (
    <span class="row">
      {isCurrent ? (
        <Badge tone="good">current</Badge>
      ) : (
        <>
          <Badge tone={last_failed_load ? "bad" : "warn"}>{loading ? "loading" : "behind"}</Badge>
          <span>
            wants <VersionLink id={wanted_version} />
          </span>
        </>
      )}
      {from_copy && <span class="small">from its own copy, because the published files are damaged</span>}
      {alone && <span class="small">shares no batches with other versions: {alone}</span>}
      {!isCurrent && last_failed_load && (
        <span class="small">
          {last_failed_load.reason} ({last_failed_load.attempts} attempts)
        </span>
      )}
      {process.aliases.state === "away" && (
        <span class="small">cannot read the aliases now: {process.aliases.error}</span>
      )}
    </span>
  );
}
