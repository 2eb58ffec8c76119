/** What the list is searched for. It stands in the address, so that it can be linked and gone back to. */

import type { Schemas } from "../../api/client";
import { address } from "../../router";

type Status = Schemas["DatasetStatus"];
export const STATUSES: readonly Status[] = ["validating", "ready", "rejected", "deleted"];

export interface Filters {
  name?: string;
  format?: string;
  status?: Status;
  /** The last data set of the page before. */
  after?: string;
}

export function filtersOf(query: URLSearchParams): Filters {
  const [name, format, status, after] = ["name", "format", "status", "after"].map((each) => query.get(each));
  const known = STATUSES.find((each) => each === status);
  return {
    ...(name && { name }),
    ...(format && { format }),
    ...(known && { status: known }),
    ...(after && { after }),
  };
}

export function addressOf({ name, format, status, after }: Filters): string {
  return address(["data"], { name, format, status, after });
}

/** Other filters begin with the first page. Empty ones are taken out. */
export function refined(filters: Filters, changes: Partial<Record<keyof Filters, string>>): Filters {
  const { after: _, ...kept } = filters;
  return filtersOf(new URLSearchParams({ ...kept, ...changes }));
}
