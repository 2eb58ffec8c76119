/** A list that a page loads piece by piece. */

import { type Inputs, useCallback, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { ApiError } from "./errors";

export interface Pages<T> {
  /** What is loaded so far. With other inputs, the old items stay until the new ones are there. */
  items: readonly T[] | undefined;
  hasMore: boolean;
  loading: boolean;
  error: ApiError | undefined;
  /** Load what comes next. After an error, try again. */
  more: () => void;
}

interface State<T> {
  items?: readonly T[];
  hasMore: boolean;
  loading: boolean;
  error?: ApiError;
}

/** Load the first items when `inputs` change, and those after `last` when they are asked for. */
export function usePages<T>(
  load: (last: T | undefined) => Promise<{ data: T[]; has_more: boolean }>,
  inputs: Inputs,
): Pages<T> {
  const [state, setState] = useState<State<T>>({ hasMore: false, loading: true });
  const turn = useRef(0);
  const append = useCallback((before: readonly T[]) => {
    turn.current += 1;
    const mine = turn.current;
    const isNewest = () => mine === turn.current;
    setState(({ error: _, ...now }) => ({ ...now, loading: true }));
    load(before.at(-1)).then(
      ({ data, has_more }) =>
        isNewest() && setState({ items: [...before, ...data], hasMore: has_more, loading: false }),
      (error: ApiError) => isNewest() && setState({ items: before, hasMore: true, loading: false, error }),
    );
    // biome-ignore lint/correctness/useExhaustiveDependencies: the caller names what the answer depends on
  }, inputs);
  // Before the page is painted: what was loaded for other inputs is never shown as if it were for these.
  useLayoutEffect(() => {
    append([]);
    return () => {
      turn.current += 1; // an answer that comes later belongs to nobody
    };
  }, [append]);
  return {
    items: state.items,
    hasMore: state.hasMore,
    loading: state.loading,
    error: state.error,
    more: () => state.loading || append(state.items ?? []),
  };
}
