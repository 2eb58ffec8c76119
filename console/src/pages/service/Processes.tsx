import { type Schemas as Api, api, ask } from "../../api/client";
import { useLoaded } from "../../api/use";
import { Badge } from "../../components/Badge";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { shortId } from "../../format";

type Process = Api["ProcessStatus"];
interface Row {
  process: Process;
  name: Api["NameStatus"];
}

const COLUMNS: Column<Row>[] = [
  { name: "Process", cell: ({ process }) => `${process.host} · ${process.pid}` },
  { name: "Name", cell: ({ name }) => name.name },
  { name: "Version", cell: ({ name }) => (name.version ? <code>{shortId(name.version)}</code> : "none yet") },
  { name: "Since", cell: ({ name }) => <Time at={name.since} /> },
  { name: "Generation", number: true, cell: ({ name }) => name.generation ?? "–" },
  { name: "State", cell: ({ name }) => <State name={name} /> },
  { name: "Process started", cell: ({ process }) => <Time at={process.started_at} /> },
];

/** Which process serves which version. */
export function Processes({ allowed, everyS }: { allowed: boolean; everyS: number }) {
  return (
    <section class="stack close" aria-labelledby="service-processes">
      <h2 id="service-processes">Versions served</h2>
      {allowed ? (
        <Loaded everyS={everyS} />
      ) : (
        <EmptyState title="Your key does not see which versions are served.">
          It lacks the scope <code>infer</code>.
        </EmptyState>
      )}
    </section>
  );
}

function Loaded({ everyS }: { everyS: number }) {
  const { data, error } = useLoaded(() => ask(api.GET("/models/status")), [], everyS);
  if (!data) return error ? <ErrorNote error={error} /> : <Skeleton lines={2} />;
  const rows = data.processes.flatMap((process) => process.models.map((name) => ({ process, name })));
  const reading = data.processes[0]?.aliases;
  return (
    <>
      {data.processes.length > 1 && (
        <p class="muted small">
          {data.processes.length} processes serve. The figures above are those of the one that answered;
          Prometheus sums them over all.
        </p>
      )}
      {reading?.error && <p class="warn-note">The aliases cannot be read: {reading.error}</p>}
      <Table
        caption="Versions by process"
        columns={COLUMNS}
        rows={rows}
        keyOf={({ process, name }) => `${process.process} ${name.name}`}
      />
    </>
  );
}

function State({ name }: { name: Row["name"] }) {
  const failure = name.last_failed_load;
  if (failure && failure.version === name.wanted_version && failure.version !== name.version) {
    return (
      <span class="row">
        <Badge tone="bad">failed to load</Badge>
        <span class="small service-reason">{failure.reason}</span>
      </span>
    );
  }
  if (name.loading) return <Badge tone="accent">loading {shortId(name.wanted_version ?? "")}</Badge>;
  return name.version ? <Badge tone="good">serving</Badge> : <Badge tone="warn">nothing</Badge>;
}
