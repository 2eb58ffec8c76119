/** The one stream of a page, which tells of jobs and aliases as they change. */

import { useEffect, useRef, useState } from "preact/hooks";
import { serviceUrl } from "./client";
import { follow } from "./events";

const TYPES = ["job", "alias", "reset"] as const;

export type Change = (typeof TYPES)[number];

/**
 * Call `onChange` for each change, and say whether the stream stands. It begins with all aliases. After a `reset`, too
 * much has changed to tell, so that everything must be read again.
 */
export function useChanges(onChange: (type: Change, data: unknown) => void, isWanted = true): boolean {
  const [isOpen, setOpen] = useState(true);
  const newest = useRef(onChange);
  newest.current = onChange;
  useEffect(() => {
    if (!isWanted) return;
    return follow(`${serviceUrl()}/events`, TYPES, {
      onEvent: (type, data) => newest.current(type as Change, data),
      onConnection: setOpen,
    });
  }, [isWanted]);
  return isOpen;
}
