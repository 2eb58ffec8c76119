/** What lists leave out: the figures of versions, and bases that are no longer listed. */

import { useEffect, useRef, useState } from "preact/hooks";
import { api, ask } from "../../api/client";
import type { Detail, Version } from "./live";
import { missingBases, withBases } from "./tree";

const AT_ONCE = 4;
const NONE: ReadonlyMap<string, Detail | null> = new Map();

/**
 * Read each version, and again in each turn, when an evaluation may have ended. A base that is not listed is read too,
 * and so on to the first. `null` stands for one that the service does not show.
 */
export function useDetails(versions: readonly Version[], turn: number): ReadonlyMap<string, Detail | null> {
  const [details, setDetails] = useState(NONE);
  const asked = useRef(new Set<string>());
  const askedIn = useRef(turn);
  const listed = versions.map(({ id }) => id).join();
  // biome-ignore lint/correctness/useExhaustiveDependencies: versions change with their ids
  useEffect(() => {
    if (askedIn.current !== turn) asked.current.clear();
    askedIn.current = turn;
    const wanted = [...versions.map(({ id }) => id), ...missingBases(withBases(versions, details))];
    const waiting = [...new Set(wanted)].filter((id) => !asked.current.has(id));
    for (const id of waiting) asked.current.add(id);
    const read = async () => {
      for (let id = waiting.shift(); id; id = waiting.shift()) {
        const name = id;
        const detail = await readDetail(name);
        if (detail !== undefined) setDetails((before) => new Map(before).set(name, detail));
        else asked.current.delete(name); // read again with the next change
      }
    };
    for (let reader = 0; reader < AT_ONCE; reader += 1) void read();
  }, [listed, details, turn]);
  return details;
}

/** Undefined if the service does not answer, which the list says. */
async function readDetail(version: string): Promise<Detail | null | undefined> {
  try {
    return await ask(api.GET("/models/{version}", { params: { path: { version } } }));
  } catch (error) {
    return (error as { status: number }).status === 404 ? null : undefined;
  }
}
