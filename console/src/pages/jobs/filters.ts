import { type FiltersOf, listFilters } from "../../filters";
import { type Job, KINDS, STATUSES } from "./job";

/** A name fits by how it begins. */
const CHOICES = { kind: KINDS, status: STATUSES, name: "text", owner: "text", after: "text" } as const;

export type Filters = FiltersOf<typeof CHOICES>;
export const { readFilters, addressOf, refined } = listFilters("jobs", CHOICES);

export function matches(job: Job, { kind, status, name, owner }: Filters): boolean {
  return (
    (kind ? job.kind === kind : job.kind !== "check") &&
    (!status || job.status === status) &&
    (!name || job.name.startsWith(name)) &&
    (!owner || job.owner === owner)
  );
}
