/** The filters of the list, which stand in the address, so that a list can be kept and sent to others. */

import { address } from "../../router";
import { type Job, KINDS, STATUSES } from "./job";

export interface Filters {
  kind?: Job["kind"];
  status?: Job["status"];
  /** How the name begins. */
  name?: string;
  owner?: string;
  /** The last job of the page before. */
  after?: string;
}

export function readFilters(query: URLSearchParams): Filters {
  const kind = KINDS.find((each) => each === query.get("kind"));
  const status = STATUSES.find((each) => each === query.get("status"));
  const [name, owner, after] = ["name", "owner", "after"].map((key) => query.get(key));
  return {
    ...(kind && { kind }),
    ...(status && { status }),
    ...(name && { name }),
    ...(owner && { owner }),
    ...(after && { after }),
  };
}

export function addressOf(filters: Filters): string {
  return address(["jobs"], { ...filters });
}

/** With other filters the list begins anew. */
export function refined(filters: Filters, changes: { [Key in keyof Filters]: Filters[Key] | "" }): Filters {
  const { after: _, ...kept } = filters;
  return readFilters(new URLSearchParams(addressOf({ ...kept, ...changes } as Filters).split("?")[1]));
}

export function matches(job: Job, { kind, status, name, owner }: Filters): boolean {
  return (
    (!kind || job.kind === kind) &&
    (!status || job.status === status) &&
    (!name || job.name.startsWith(name)) &&
    (!owner || job.owner === owner)
  );
}
