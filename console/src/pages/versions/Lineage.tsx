import { useMemo, useState } from "preact/hooks";
import { dataName } from "../../api/datasets";
import { may } from "../../api/session";
import { StatusBadge } from "../../components/Badge";
import { Button } from "../../components/Button";
import { EmptyState } from "../../components/EmptyState";
import { SelectField } from "../../components/SelectField";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { bytes, percent } from "../../format";
import { address } from "../../router";
import { DatasetLink, useDatasets } from "./datasets";
import { useDetails } from "./details";
import {
  BENCHMARKS,
  COLUMNS,
  dataSetsOf,
  type Evaluation,
  evaluationsOf,
  interval,
  type Metric,
} from "./figures";
import { type Registry, useLiveRegistry, type Version } from "./live";
import { AliasBadges, JobLink, shortReference, VersionLink } from "./names";
import { type Row, treeOf, withBases } from "./tree";

/** Each version below its base, with its figures in columns. */
export function Lineage({ registry }: { registry: Registry }) {
  const { showMore, turn } = useLiveRegistry();
  const details = useDetails(registry.versions, turn);
  const [chosen, setChosen] = useState<Record<string, string>>({});
  const all = withBases<Version>(registry.versions, details);
  const measured = useMemo(
    () => new Map([...details].map(([id, detail]) => [id, evaluationsOf(detail?.evaluations)])),
    [details],
  );
  const sets = new Map(
    BENCHMARKS.map((benchmark) => [benchmark, dataSetsOf(measured.values(), benchmark)] as const),
  );
  const shown = new Map(
    [...sets].map(([benchmark, found]) => [benchmark, chosen[benchmark] ?? found[0]] as const),
  );
  const named = useDatasets([...sets.values()].flat());
  const columns: Column<Row<Version>>[] = [
    { name: "Version", names: true, cell: (row) => <Branch row={row} /> },
    ...COLUMNS.map(({ title, benchmark, metric }) => {
      const data = shown.get(benchmark);
      const isShown = (each: Evaluation) => each.benchmark === benchmark && each.data === data;
      return {
        name: title,
        number: true,
        below: (
          <span class="version-set" title={data}>
            <DatasetLink id={data || " "} sets={named} />
          </span>
        ),
        cell: ({ id }: Row<Version>) => <Figure of={measured.get(id)?.find(isShown)?.metrics[metric]} />,
      };
    }),
    { name: "Made by", cell: ({ version }) => <Maker job={version?.job_id} /> },
    { name: "Size", number: true, cell: ({ version }) => bytes(version?.size_bytes) },
    { name: "Created", cell: ({ version }) => <Time at={version?.created_at} /> },
  ];
  if (!all.length) return <NoVersions />;
  return (
    <section class="stack close" aria-labelledby="lineage">
      <div class="row apart">
        <h2 id="lineage">Lineage</h2>
        <div class="row version-sets">
          {[...sets].map(
            ([benchmark, found]) =>
              found.length > 1 && (
                <SelectField
                  key={benchmark}
                  label={`Data of ${benchmark}`}
                  options={found.map((data) => [data, dataName(data, named)])}
                  value={shown.get(benchmark) ?? ""}
                  onChange={(data) => setChosen((before) => ({ ...before, [benchmark]: data }))}
                />
              ),
          )}
        </div>
      </div>
      <Table
        caption="Versions and what they were made from"
        class="version-tree"
        columns={columns}
        rows={treeOf(all)}
        keyOf={({ id }) => id}
      />
      {registry.hasMore && (
        <div class="row">
          <Button onClick={showMore}>Show older versions</Button>
        </div>
      )}
      {registry.versions.every(({ base_version }) => !base_version) && <NoVersions />}
    </section>
  );
}

/** A version, with lines from its base. */
function Branch({ row }: { row: Row<Version> }) {
  const { version } = row;
  return (
    <div class="version-branch">
      {row.lines.map((leadsOn, level) => (
        <span
          // biome-ignore lint/suspicious/noArrayIndexKey: a line is its level
          key={level}
          class={`version-line ${level === row.lines.length - 1 ? "own" : ""} ${leadsOn ? "on" : ""}`}
          aria-hidden="true"
        />
      ))}
      <div class="version-title">
        <span class="visually-hidden">Level {row.depth + 1}:</span>
        <VersionLink id={row.id} />
        {version && <AliasBadges names={version.aliases} />}
        {version && version.status !== "ready" && <StatusBadge status={version.status} />}
        <Origin row={row} />
      </div>
    </div>
  );
}

function Figure({ of }: { of: Metric | undefined }) {
  if (!of) return <span class="muted">–</span>;
  return (
    <>
      {percent(of.value)}
      <span class="version-interval">{interval(of)}</span>
    </>
  );
}

function Maker({ job }: { job: string | null | undefined }) {
  return <span class={`nowrap ${job ? "" : "muted"}`}>{job ? <JobLink id={job} short /> : "–"}</span>;
}

/** What stands in place of a base: what the model is called, or why so little is known of it. */
function Origin({ row: { version, name } }: { row: Row<Version> }) {
  if (version?.base_version) return null;
  const reference = version?.base ?? name;
  return (
    <span class="muted small" title={reference ?? undefined}>
      {reference && shortReference(reference)}
      {!version && (reference ? ", not shown to this key" : "Not shown to this key")}
    </span>
  );
}

function NoVersions() {
  return (
    <EmptyState title="No version has been made yet.">
      {may("train") ? (
        <>
          A fine-tuning job that succeeds makes one. <a href={address(["new"])}>Start a job.</a>
        </>
      ) : (
        "A fine-tuning job that succeeds makes one. It takes a key with the scope train."
      )}
    </EmptyState>
  );
}
