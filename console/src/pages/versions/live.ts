/** What the pages of versions show, as it changes. */

import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import { useChanges } from "../../api/changes";
import { api, ask, type Schemas } from "../../api/client";
import { type Loaded, useLoaded } from "../../api/use";
import { isServedByAll, progressOf } from "./rollout";

export type Alias = Schemas["AliasInfo"];
export type Version = Schemas["VersionInfo"];
export type Detail = Schemas["VersionDetail"];

export interface Registry {
  registry: Schemas["ModelsAndVersions"]["registry"];
  /** The models of the process that answers. */
  served: Pick<Schemas["ServedModel"], "version" | "precision">[];
  aliases: Alias[];
  versions: Version[];
  hasMore: boolean;
}

export interface Live {
  models: Loaded<Registry>;
  status: Loaded<Schemas["ServingStatus"]>;
  /** Grows with every change of an alias: what depends on aliases is read again then. */
  turn: number;
  isConnected: boolean;
  showMore: () => void;
}

const PAGE = 100;
const SOON_MS = 100;
const SWAP_MS = 1000;
const EVERY_S = 30;

/** The registry, read again when the stream tells of a change, and the processes, watched while they change. */
export function useLive(): Live {
  const [wanted, setWanted] = useState(PAGE);
  const [turn, setTurn] = useState(0);
  const newestWanted = useRef(wanted);
  newestWanted.current = wanted;
  const models = useLoaded(() => readRegistry(newestWanted.current), [], EVERY_S);
  const status = useLoaded(() => ask(api.GET("/models/status")), [], EVERY_S);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);

  const reload = () => {
    timer.current = undefined;
    models.reload();
    status.reload();
    setTurn((before) => before + 1);
  };
  const isConnected = useChanges(
    (type, data) => {
      // A job matters when it has made a version. Several changes at once are one.
      if (type === "job" && (data as Schemas["JobInfo"]).status !== "succeeded") return;
      timer.current ??= setTimeout(reload, SOON_MS);
    },
    models.data !== undefined && models.data.registry !== "none",
  );
  useEffect(() => () => clearTimeout(timer.current), []);

  const isSettled = (models.data?.aliases ?? []).every((alias) =>
    isServedByAll(progressOf(status.data?.processes ?? [], alias)),
  );
  useEffect(() => {
    if (isSettled) return;
    const watching = setInterval(status.reload, SWAP_MS);
    return () => clearInterval(watching);
  }, [isSettled, status.reload]);

  const showMore = () => {
    setWanted((before) => before + PAGE);
    newestWanted.current = wanted + PAGE;
    models.reload();
  };
  return { models, status, turn, isConnected, showMore };
}

export const LiveContext = createContext<Live | undefined>(undefined);

export function useLiveRegistry(): Live {
  const live = useContext(LiveContext);
  if (!live) throw new Error("This component stands outside the pages of versions.");
  return live;
}

/** Call `reload` with every change of an alias. */
export function useEachTurn(reload: () => void): void {
  const { turn } = useLiveRegistry();
  // biome-ignore lint/correctness/useExhaustiveDependencies: the turn is the reason to read again
  useEffect(() => {
    if (turn) reload();
  }, [turn]);
}

async function readRegistry(wanted: number): Promise<Registry> {
  const versions: Version[] = [];
  for (;;) {
    const after = versions.at(-1)?.id;
    const query = { limit: PAGE, ...(after && { after }) };
    const page = await ask(api.GET("/models", { params: { query } }));
    versions.push(...(page.versions ?? []));
    const hasMore = page.has_more ?? false;
    if (!hasMore || versions.length >= wanted) {
      const { registry, models: served, aliases = [] } = page;
      return { registry, served, aliases, versions, hasMore };
    }
  }
}
