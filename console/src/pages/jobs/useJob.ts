import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api, ask, type Schemas } from "../../api/client";
import type { ApiError } from "../../api/errors";
import { useLoaded } from "../../api/use";
import { type Arrived, useEvents, useRegained } from "../../api/use-events";
import type { Range } from "../../components/Chart";
import { appended, type Curves, detailed, longest, type Point } from "./curves";
import { getJob } from "./data";
import { hasEnded, type Job } from "./job";

export type JobEvent = Schemas["EventInfo"];
type Progress = Pick<Job, "status" | "stage" | "progress" | "attempt" | "estimated_finish" | "no_worker">;

/** Points of a curve that the service is asked for: enough for two in each pixel's column. */
const POINTS = 1200;

export interface LiveJob {
  job: Job | undefined;
  /** All but those of metrics, in order. */
  events: readonly JobEvent[];
  /** Of all steps. */
  curves: Curves | undefined;
  /** The curves with every detail of the range, if one is shown. */
  zoomed: Curves | undefined;
  error: ApiError | undefined;
  lost: boolean;
  reload: () => void;
}

/**
 * A job, its events and its curves as they grow.
 *
 * One stream is open: that of the job's own events until it has ended, and then that of all changes, because somebody
 * may retry the job.
 */
export function useJob(id: string, range: Range | undefined): LiveJob {
  const [job, setJob] = useState<Job>();
  const [error, setError] = useState<ApiError>();
  const [events, setEvents] = useState<readonly JobEvent[]>([]);
  const [isOpen, setOpen] = useState(true);
  const { curves, add, again, error: failure } = useCurves(id);
  const part = useLoaded(async () => range && (await getCurves(id, range)), [id, range?.[0], range?.[1]]);
  const zoomed = useMemo(
    () => (curves && range ? detailed(curves, part.data, range) : curves),
    [curves, part.data, range],
  );

  const reload = () => {
    getJob(id).then((found) => {
      setError(undefined);
      setJob(found);
      setOpen((open) => open || !hasEnded(found.status));
    }, setError);
  };
  useEffect(reload, [id]);

  const ofJob = (arrived: readonly Arrived[]) => {
    const told = arrived
      .filter(({ type }) => type === "status" || type === "message")
      .map(({ data }) => data as JobEvent);
    if (told.length) setEvents((before) => joined(before, told));
    const points = arrived.filter(({ type }) => type === "metrics");
    if (points.length) add(points.map(({ data }) => pointOf(data as JobEvent)));
    const progress = arrived.findLast(({ type }) => type === "progress")?.data as Progress | undefined;
    if (progress) setJob((before) => before && ({ ...before, ...progress } as Job));
    if (arrived.some(({ type }) => type === "status" || type === "done")) reload();
    if (arrived.some(({ type }) => type === "done")) setOpen(false);
  };
  const ofAll = (arrived: readonly Arrived[]) => {
    const isTold = arrived.some(({ type, data }) => type === "reset" || (data as Job).id === job?.id);
    if (isTold) reload();
  };
  const path = isOpen ? `jobs/${encodeURIComponent(id)}/events` : "events";
  const types = isOpen ? ["status", "message", "metrics", "progress", "done"] : ["job", "reset"];
  const lost = useEvents(path, types, isOpen ? ofJob : ofAll);
  const readAgain = () => {
    reload();
    again();
    part.reload();
  };
  useRegained(lost, readAgain);
  return { job, events, curves, zoomed, error: error ?? failure ?? part.error, lost, reload: readAgain };
}

function useCurves(id: string) {
  const [curves, setCurves] = useState<Curves>();
  const [error, setError] = useState<ApiError>();
  const [turn, setTurn] = useState(0);
  const arrived = useRef<Point[]>([]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: a long curve is thinned again at its next turn
  useEffect(() => {
    let isNewest = true;
    arrived.current = [];
    getCurves(id).then(
      (found) => {
        if (!isNewest) return;
        setError(undefined);
        setCurves(appended(found, arrived.current));
      },
      (failure: ApiError) => isNewest && setError(failure),
    );
    return () => {
      isNewest = false;
    };
  }, [id, turn]);

  const add = (points: readonly Point[]) => {
    arrived.current.push(...points);
    setCurves((before) => before && appended(before, points));
  };
  const again = () => setTurn((before) => before + 1);
  const isLong = curves !== undefined && longest(curves) > 2 * POINTS;
  useEffect(() => {
    if (isLong) setTurn((before) => before + 1);
  }, [isLong]);
  return { curves, add, again, error };
}

export async function getCurves(id: string, range?: Range): Promise<Curves> {
  const query = { points: POINTS, ...(range && { from_step: range[0], to_step: range[1] }) };
  const path = { job_id: id };
  return (await ask(api.GET("/jobs/{job_id}/curves", { params: { path, query } }))).curves;
}

/** Events are numbered, and a stream that begins again tells old ones again. */
function joined(before: readonly JobEvent[], told: readonly JobEvent[]): readonly JobEvent[] {
  const last = before.at(-1)?.id ?? 0;
  const news = told.filter((event) => event.id > last);
  return news.length ? [...before, ...news] : before;
}

function pointOf({ data }: JobEvent): Point {
  return data as unknown as Point;
}
