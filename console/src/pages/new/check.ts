import { useEffect, useRef, useState } from "preact/hooks";
import { type Schemas as Api, api, ask } from "../../api/client";
import { ApiError } from "../../api/errors";
import { type Body, controlOf, type Job, type Kind, withControl } from "./draft";

const PAUSE_MS = 500;

export interface Check {
  job?: Api["Estimate"];
  control?: Api["Estimate"];
  error?: ApiError;
}

interface State extends Check {
  /** What was checked. */
  of?: string;
}

/**
 * Dry runs of a job and perhaps of its control, a moment after the last change. The last answer stays meanwhile, until a
 * request is refused.
 */
export function useCheck(kind: Kind, body: Body | undefined, control: boolean): Check & { current: boolean } {
  const [state, setState] = useState<State>({});
  const wanted = body && JSON.stringify([body, control]);
  const latest = useRef(body);
  latest.current = body;
  useEffect(() => {
    if (!wanted) {
      setState({});
      return;
    }
    const stop = new AbortController();
    const timer = setTimeout(() => {
      const asked = latest.current ?? {};
      Promise.all([
        dryRun(kind, asked, stop.signal),
        control ? dryRun(kind, controlOf(asked), stop.signal) : undefined,
      ]).then(
        ([job, other]) => setState({ of: wanted, job, ...(other && { control: other }) }),
        (error: ApiError) => stop.signal.aborted || setState({ of: wanted, error }),
      );
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [kind, wanted, control]);
  const { of, ...check } = state;
  return { ...check, current: of === wanted };
}

/**
 * Submit a job, after its control if it has one. The key makes it harmless to send the same again.
 *
 * A control whose job is refused for a wrong field is cancelled, because the next try will be another job.
 */
export async function submit(kind: Kind, body: Body, control: boolean, key: string): Promise<Job[]> {
  if (!control) return [await send(kind, body, key)];
  const first = await send(kind, controlOf(body), `${key}-control`);
  try {
    return [await send(kind, withControl(body, first.id), key), first];
  } catch (error) {
    if (error instanceof ApiError && error.param) {
      await ask(api.POST("/jobs/{job_id}/cancel", { params: { path: { job_id: first.id } } }));
    }
    throw error;
  }
}

async function dryRun(kind: Kind, body: Body, signal: AbortSignal): Promise<Api["Estimate"]> {
  const found = await post(kind, { ...body, dry_run: true }, { signal });
  return (found as Api["DryRunResult"]).estimate;
}

async function send(kind: Kind, body: Body, key: string): Promise<Job> {
  return (await post(kind, body, { params: { header: { "Idempotency-Key": key } } })) as Job;
}

/** The form's fields come from the description at run time, so that the compiler does not know them. */
function post(kind: Kind, body: Body, options: object): Promise<unknown> {
  return kind === "finetune"
    ? ask(api.POST("/finetune", { body: body as never, ...options }))
    : ask(api.POST("/evaluate", { body: body as never, ...options }));
}
