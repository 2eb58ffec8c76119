import { type Filters, matches } from "./filters";
import type { Job, JobList } from "./job";

export const PAGE = 50;

/**
 * A page of jobs, newest first, after a change of one of them.
 *
 * A job that the page shows is replaced, or leaves if the filters no longer fit. Another one comes in where it belongs,
 * if that is on this page.
 */
export function merged(page: JobList, job: Job, filters: Filters): JobList {
  const fits = matches(job, filters);
  if (page.data.some(({ id }) => id === job.id)) {
    const data = fits
      ? page.data.map((each) => (each.id === job.id ? job : each))
      : page.data.filter(({ id }) => id !== job.id);
    return { ...page, data };
  }
  const [first, last] = [page.data[0], page.data.at(-1)];
  const isBefore = filters.after !== undefined && (!first || isNewer(job, first));
  const isAfter = page.has_more && last !== undefined && isNewer(last, job);
  if (!fits || isBefore || isAfter) return page;
  const place = page.data.findIndex((each) => isNewer(job, each));
  const data = page.data.toSpliced(place < 0 ? page.data.length : place, 0, job);
  return { ...page, data: data.slice(0, PAGE), has_more: page.has_more || data.length > PAGE };
}

const isNewer = (one: Job, other: Job) =>
  one.created_at > other.created_at || (one.created_at === other.created_at && one.id > other.id);
