import { type Schemas as Api, api, ask } from "../../api/client";
import { of, type Reading, sum } from "../../api/prometheus";
import { useLoaded } from "../../api/use";
import { Badge } from "../../components/Badge";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { counted, duration } from "../../format";
import { address } from "../../router";

const COLUMNS: Column<Api["WorkerInfo"]>[] = [
  { name: "Queue", cell: ({ queue }) => queue },
  { name: "Worker", cell: ({ host, pid }) => `${host} · ${pid}` },
  {
    name: "State",
    cell: ({ alive, job, out_because }) =>
      alive && out_because ? (
        <Badge tone="bad">out</Badge>
      ) : alive ? (
        <Badge tone={job ? "accent" : "neutral"}>{job ? "busy" : "idle"}</Badge>
      ) : (
        <Badge tone="bad">gone</Badge>
      ),
  },
  {
    name: "Job",
    cell: ({ job, out_because }) => (job ? <a href={address(["jobs", job])}>{job}</a> : (out_because ?? "–")),
  },
  { name: "Device", cell: ({ device }) => device },
  { name: "Heartbeat", cell: ({ seen_at }) => <Time at={seen_at} /> },
  { name: "Started", cell: ({ started_at }) => <Time at={started_at} /> },
  { name: "Release", cell: ({ version }) => version },
];

interface Props {
  allowed: boolean;
  everyS: number;
  reading: Reading | undefined;
}

/** Who takes jobs, and how many wait for them. */
export function Workers({ allowed, everyS, reading }: Props) {
  const waiting = reading && sum(reading, "sds_clip_jobs", ({ status }) => status === "queued");
  const checks = reading && sum(reading, "sds_clip_datasets", ({ status }) => status === "validating");
  const ages = reading ? of(reading, "sds_clip_queue_age_seconds").map(({ value }) => value) : [];
  return (
    <section class="stack close" aria-labelledby="service-workers">
      <div class="row apart">
        <h2 id="service-workers">Workers</h2>
        <span class="muted small">
          {waiting
            ? `${counted(waiting, "job waits", "jobs wait")}, the longest for ${duration(Math.max(...ages))}.`
            : waiting === 0 && "No job waits."}
          {Boolean(checks) && (
            <>
              {" "}
              <a href="#/data?status=validating">{counted(checks ?? 0, "data set")}</a> to check. Workers
              check data beside their jobs.
            </>
          )}
        </span>
      </div>
      {allowed ? (
        <Loaded everyS={everyS} />
      ) : (
        <EmptyState title="Your key does not see the workers.">
          It lacks the scope <code>train</code>.
        </EmptyState>
      )}
    </section>
  );
}

function Loaded({ everyS }: { everyS: number }) {
  const { data, error } = useLoaded(() => ask(api.GET("/workers")), [], everyS);
  if (!data) return error ? <ErrorNote error={error} /> : <Skeleton lines={2} />;
  if (!data.data.length) {
    return (
      <EmptyState title="No worker has run within the last day.">
        Jobs wait until one starts. <code>sds-clip up</code> starts two, and{" "}
        <code>sds-clip worker --queue finetune</code> one.
      </EmptyState>
    );
  }
  return <Table caption="Workers and their jobs" columns={COLUMNS} rows={data.data} keyOf={({ id }) => id} />;
}
