import { api, ask } from "../../api/client";
import { useLoaded, useReloaded } from "../../api/use";
import { StatusBadge } from "../../components/Badge";
import { CopyBlock } from "../../components/CopyBlock";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { Choice, Typed } from "../../components/Filters";
import { Skeleton } from "../../components/Skeleton";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { TwoLines } from "../../components/TwoLines";
import { bytes, count, counted } from "../../format";
import { address } from "../../router";
import { addressOf, type Filters, refined, STATUSES } from "./filters";
import { badOf, type DataSet, sizeOf } from "./findings";
import { FORMATS, meaningOf } from "./formats";
import { UploadPanel } from "./UploadPanel";

const EVERY_S = 15;
const DEMO = "sds-clip datasets upload \\\n    demo/data/validation \\\n    --format winoground --name demo";

const COLUMNS: Column<DataSet>[] = [
  {
    name: "Data set",
    cell: (set) => (
      <TwoLines class="data-two" below={`${set.format} · ${meaningOf(set.format)}`}>
        <a href={address(["data", set.id])}>{set.name || set.id}</a>
      </TwoLines>
    ),
  },
  { name: "Status", cell: (set) => <State set={set} /> },
  { name: "Content", number: true, cell: (set) => <Content set={set} /> },
  { name: "Size", number: true, cell: (set) => bytes(set.source.size_bytes) },
  { name: "Owner", cell: (set) => set.owner || <span class="muted">–</span> },
  { name: "Created", number: true, cell: (set) => <Time at={set.created_at} /> },
];

export function DataList({ filters }: { filters: Filters }) {
  const sets = useLoaded(
    () => ask(api.GET("/datasets", { params: { query: filters } })),
    [addressOf(filters)],
    EVERY_S,
  );
  useReloaded(sets.data?.data.some(({ status }) => status === "validating") ?? false, sets.reload);
  const isFiltered = Object.keys(filters).length > 0;
  return (
    <div class="page">
      <div class="row apart">
        <h1>Data</h1>
        <a class="button primary" href="#/data?add=1">
          Add data
        </a>
      </div>
      <UploadPanel />
      {(isFiltered || sets.data?.data.length !== 0) && <FilterRow filters={filters} />}
      <ErrorNote error={sets.error} onRetry={sets.reload} />
      {!sets.data ? (
        !sets.error && <Skeleton lines={8} />
      ) : sets.data.data.length ? (
        <div class="stack">
          <Table
            caption="Data sets, newest first"
            columns={COLUMNS}
            rows={sets.data.data}
            keyOf={(set) => set.id}
          />
          <nav class="row" aria-label="Pages of the list">
            {filters.after && <a href={addressOf(refined(filters, {}))}>Newest data sets</a>}
            {sets.data.has_more && (
              <a href={addressOf({ ...filters, after: sets.data.data.at(-1)?.id ?? "" })}>Older data sets</a>
            )}
          </nav>
        </div>
      ) : isFiltered ? (
        <EmptyState title="No data set fits these filters.">
          <a href="#/data">Show all data sets.</a>
        </EmptyState>
      ) : (
        <Empty />
      )}
    </div>
  );
}

function State({ set }: { set: DataSet }) {
  const check = set.being_checked ? "is being checked" : "waits for a worker";
  return (
    <TwoLines class="data-two" below={set.status === "validating" && check}>
      <StatusBadge status={set.status} />
    </TwoLines>
  );
}

function Content({ set }: { set: DataSet }) {
  const size = sizeOf(set);
  const bad = badOf(set);
  if (!size) return <span class="muted">–</span>;
  return <TwoLines below={bad > 0 && `${count(bad)} unusable`}>{counted(size.all, size.one)}</TwoLines>;
}

function Empty() {
  return (
    <EmptyState title="There are no data sets yet.">
      <div class="stack data-empty">
        <p>
          A model is trained on images with captions, and measured on a benchmark.{" "}
          <a href="#/data?add=1">Upload an archive</a>, or let the command line pack a folder and send it.
          This sends the demo's own benchmark:
        </p>
        <CopyBlock label="Send the demo's benchmark" code={DEMO} />
      </div>
    </EmptyState>
  );
}

function FilterRow({ filters }: { filters: Filters }) {
  const go = (changes: Parameters<typeof refined>[1]) => {
    location.hash = addressOf(refined(filters, changes));
  };
  return (
    <search class="data-filters">
      <Typed label="Name begins with" value={filters.name ?? ""} onChange={(name) => go({ name })} />
      <Choice
        label="Format"
        value={filters.format}
        of={FORMATS.map(({ name }) => name)}
        onChange={(format) => go({ format })}
      />
      <Choice label="Status" value={filters.status} of={STATUSES} onChange={(status) => go({ status })} />
    </search>
  );
}
