import type { Schemas } from "../../api/client";
import { Badge } from "../../components/Badge";
import { Folded } from "../../components/Folded";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { JobLink, VersionLink } from "./names";

type Line = Schemas["PromotionInfo"];

const ACTIONS: Record<Line["action"], string> = {
  promote: "promoted",
  rollback: "rolled back",
  lock: "locked",
  unlock: "unlocked",
  give: "given to a key",
  remove: "removed",
};

const COLUMNS: Column<Line>[] = [
  {
    name: "When",
    cell: ({ at }) => <Time at={at} full />,
  },
  { name: "Alias", cell: ({ alias }) => <Badge tone="accent">{alias}</Badge> },
  {
    name: "Action",
    cell: ({ action, forced }) => (
      <span class="row nowrap">
        {ACTIONS[action]}
        {forced && <Badge tone="warn">forced</Badge>}
      </span>
    ),
  },
  {
    name: "From → to",
    cell: ({ from_version, to_version }) => (
      <span class="nowrap">
        {from_version && from_version !== to_version && (
          <>
            <VersionLink id={from_version} /> →{" "}
          </>
        )}
        <VersionLink id={to_version} />
      </span>
    ),
  },
  { name: "Who", cell: ({ who, job_id }) => (job_id ? <JobLink id={job_id} short /> : who) },
  {
    name: "Reason",
    cell: ({ why }) => (
      <span class="version-why">
        <Folded text={why} />
      </span>
    ),
  },
];

export function AuditTable({ caption, lines }: { caption: string; lines: readonly Line[] }) {
  return <Table caption={caption} columns={COLUMNS} rows={lines} keyOf={({ id }) => id} />;
}
