import { type Inputs, useEffect, useRef, useState } from "preact/hooks";
import { follow } from "./events";

export interface Arrived {
  type: string;
  data: unknown;
}

/** Events come in crowds, and a page is drawn once for all that arrive within this time. */
const GATHER_MS = 100;

/**
 * Follow a stream while the page is open, and hand over what arrives. Without a path, nothing is followed.
 *
 * The result says whether the connection was lost. An event `done` is a stream's last one.
 */
export function useEvents(
  path: string | undefined,
  types: readonly string[],
  onEvents: (events: readonly Arrived[]) => void,
  inputs: Inputs = [],
): boolean {
  const [lost, setLost] = useState(false);
  const handle = useRef(onEvents);
  handle.current = onEvents;
  // biome-ignore lint/correctness/useExhaustiveDependencies: the types belong to the path
  useEffect(() => {
    if (path === undefined) return;
    let gathered: Arrived[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const hand = () => {
      timer = undefined;
      const events = gathered;
      gathered = [];
      handle.current(events);
    };
    const stop = follow(path, types, {
      onEvent: (type, data) => {
        gathered.push({ type, data });
        timer ??= setTimeout(hand, GATHER_MS);
        if (type === "done") stop();
      },
      onConnection: (open) => setLost(!open),
    });
    return () => {
      stop();
      clearTimeout(timer);
      setLost(false);
    };
  }, [path, ...inputs]);
  return lost;
}
