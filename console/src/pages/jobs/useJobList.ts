import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ApiError } from "../../api/errors";
import { useLoaded } from "../../api/use";
import { useEvents, useRegained } from "../../api/use-events";
import { listJobs } from "./data";
import { addressOf, type Filters } from "./filters";
import type { Job, JobList } from "./job";
import { merged, PAGE } from "./merge";

interface Live {
  page: JobList | undefined;
  error: ApiError | undefined;
  reload: () => void;
  /** Whether what is shown may be old. */
  lost: boolean;
  /** Whether the page for the newest filters is still on its way. The one before stays meanwhile. */
  waiting: boolean;
}

/** Changes that are kept beside a page before it is read again. */
const MAX_CHANGES = 500;

/** A page of jobs that follows the stream of changes. The stream is opened first, so that no change is missed. */
export function useJobList(filters: Filters): Live {
  const place = addressOf(filters);
  const [changes, setChanges] = useState<ReadonlyMap<string, Job>>(new Map());
  const newest = useRef(changes);
  newest.current = changes;

  const loaded = useLoaded(async () => {
    const told = newest.current;
    const page = await listJobs({ ...filters, limit: PAGE });
    // The page knows what was told before it was asked for.
    setChanges((now) => new Map([...now].filter(([id, job]) => told.get(id) !== job)));
    return page;
  }, [place]);

  const lost = useEvents("events", ["job", "reset"], (events) => {
    const jobs = events.filter(({ type }) => type === "job").map(({ data }) => data as Job);
    if (jobs.length) setChanges((now) => new Map([...now, ...jobs.map((job) => [job.id, job] as const)]));
    if (events.some(({ type }) => type === "reset")) loaded.reload();
  });
  const { reload } = loaded;
  useRegained(lost, reload);
  const tooMany = changes.size > MAX_CHANGES;
  useEffect(() => {
    if (tooMany) reload();
  }, [tooMany, reload]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the place says what the filters are
  const live = useMemo(
    () => loaded.data && [...changes.values()].reduce((page, job) => merged(page, job, filters), loaded.data),
    [loaded.data, changes, place],
  );
  const before = useRef<JobList | undefined>(undefined);
  if (live) before.current = live;
  return { page: live ?? before.current, error: loaded.error, reload, lost, waiting: !live };
}
