import { useMemo, useState } from "preact/hooks";
import { may } from "../../api/session";
import { StatusBadge } from "../../components/Badge";
import { Button } from "../../components/Button";
import { EmptyState } from "../../components/EmptyState";
import { Field } from "../../components/Field";
import { Time } from "../../components/Time";
import { bytes, percent } from "../../format";
import { address } from "../../router";
import { DatasetLink, nameOf, useDatasets } from "./datasets";
import { useDetails } from "./details";
import { BENCHMARKS, COLUMNS, dataSetsOf, type Evaluation, evaluationsOf, interval } from "./figures";
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
  if (!all.length) return <NoVersions />;
  return (
    <section class="stack close" aria-labelledby="lineage">
      <div class="row apart">
        <h2 id="lineage">Lineage</h2>
        <div class="row version-sets">
          {[...sets].map(
            ([benchmark, found]) =>
              found.length > 1 && (
                <DataSetField
                  key={benchmark}
                  benchmark={benchmark}
                  sets={found.map((data) => [data, nameOf(data, named)])}
                  value={shown.get(benchmark) ?? ""}
                  onChange={(data) => setChosen((before) => ({ ...before, [benchmark]: data }))}
                />
              ),
          )}
        </div>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard */}
      <section class="table-box" tabIndex={0} aria-label="Versions and what they were made from">
        <table class="version-tree cards">
          <thead>
            <tr>
              <th scope="col">Version</th>
              {COLUMNS.map(({ title, benchmark }) => (
                <th key={title} scope="col" class="number">
                  {title}
                  <span class="version-set" title={shown.get(benchmark)}>
                    <DatasetLink id={shown.get(benchmark) || " "} sets={named} />
                  </span>
                </th>
              ))}
              <th scope="col">Made by</th>
              <th scope="col" class="number">
                Size
              </th>
              <th scope="col">Created</th>
            </tr>
          </thead>
          <tbody>
            {treeOf(all).map((row) => (
              <TreeRow key={row.id} row={row} evaluations={measured.get(row.id)} shown={shown} />
            ))}
          </tbody>
        </table>
      </section>
      {registry.hasMore && (
        <div class="row">
          <Button onClick={showMore}>Show older versions</Button>
        </div>
      )}
      {registry.versions.every(({ base_version }) => !base_version) && <NoVersions />}
    </section>
  );
}

interface RowProps {
  row: Row<Version>;
  /** Undefined until they are loaded. */
  evaluations: readonly Evaluation[] | undefined;
  shown: ReadonlyMap<string, string | undefined>;
}

function TreeRow({ row, evaluations, shown }: RowProps) {
  const { version } = row;
  return (
    <tr>
      <th scope="row" class="version-name">
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
      </th>
      {COLUMNS.map(({ title, benchmark, metric }) => {
        const found = evaluations?.find(
          (each) => each.benchmark === benchmark && each.data === shown.get(benchmark),
        )?.metrics[metric];
        return (
          <td key={title} class="number" data-name={title}>
            {found ? percent(found.value) : <span class="muted">–</span>}
            {found && <span class="version-interval">{interval(found)}</span>}
          </td>
        );
      })}
      <td class="nowrap" data-name="Made by">
        {version?.job_id ? <JobLink id={version.job_id} short /> : <span class="muted">–</span>}
      </td>
      <td class="number" data-name="Size">
        {bytes(version?.size_bytes)}
      </td>
      <td data-name="Created">
        <Time at={version?.created_at} />
      </td>
    </tr>
  );
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

interface FieldProps {
  benchmark: string;
  /** The ids of the data sets with their names. */
  sets: readonly (readonly [string, string])[];
  value: string;
  onChange: (data: string) => void;
}

function DataSetField({ benchmark, sets, value, onChange }: FieldProps) {
  return (
    <Field label={`Data of ${benchmark}`}>
      {(control) => (
        <select {...control} value={value} onChange={({ currentTarget }) => onChange(currentTarget.value)}>
          {sets.map(([data, name]) => (
            <option key={data} value={data}>
              {name}
            </option>
          ))}
        </select>
      )}
    </Field>
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
