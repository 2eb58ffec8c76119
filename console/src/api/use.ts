/** What a page loads, and what it does meanwhile. */

import { type Inputs, useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { ApiError } from "./errors";

export interface Loaded<T> {
  /** The newest answer. It stays while it is loaded again, so that a page does not jump. */
  data: T | undefined;
  error: ApiError | undefined;
  reload: () => void;
}

/** Load when `inputs` change, and then every `everyS` seconds while the page is visible. */
export function useLoaded<T>(load: () => Promise<T>, inputs: Inputs, everyS?: number): Loaded<T> {
  const [state, setState] = useState<{ data?: T; error?: ApiError }>({});
  const turn = useRef(0);
  const reload = useCallback(() => {
    turn.current += 1;
    const mine = turn.current;
    const isNewest = () => mine === turn.current;
    load().then(
      (data) => isNewest() && setState({ data }),
      (error: ApiError) => isNewest() && setState((before) => ({ ...before, error })),
    );
    // biome-ignore lint/correctness/useExhaustiveDependencies: the caller names what the answer depends on
  }, inputs);
  // Before the page is painted: what was loaded for other inputs is never shown as if it were for these.
  useLayoutEffect(() => {
    setState({});
    reload();
    const timer =
      everyS === undefined ? undefined : setInterval(() => document.hidden || reload(), everyS * 1000);
    return () => {
      turn.current += 1; // an answer that comes later belongs to nobody
      clearInterval(timer);
    };
  }, [reload, everyS]);
  return { data: state.data, error: state.error, reload };
}

/** Load again every `everyS` seconds while something is `underWay` and the page is visible. */
export function useReloaded(underWay: boolean, reload: () => void, everyS = 1): void {
  useEffect(() => {
    if (!underWay) return;
    const timer = setInterval(() => document.hidden || reload(), everyS * 1000);
    return () => clearInterval(timer);
  }, [underWay, reload, everyS]);
}

export interface Action<A extends unknown[]> {
  run: (...args: A) => Promise<void>;
  running: boolean;
  error: ApiError | undefined;
}

/** Something that a button does: whether it is under way, and how it failed. */
export function useAction<A extends unknown[]>(act: (...args: A) => Promise<void>): Action<A> {
  const [running, setRunning] = useState(false);
  const [error, setError] = useState<ApiError>();
  const run = async (...args: A) => {
    setRunning(true);
    setError(undefined);
    try {
      await act(...args);
    } catch (failure) {
      setError(failure as ApiError);
    } finally {
      setRunning(false);
    }
  };
  return { run, running, error };
}
