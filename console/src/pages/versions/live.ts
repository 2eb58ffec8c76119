/** What the pages of versions show, as it changes. */

import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import { api, ask, type Schemas, serviceUrl } from "../../api/client";
import { type Loaded, useLoaded } from "../../api/use";
import { useEvents } from "../../api/use-events";
import { progressOf } from "./rollout";

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
  isLost: boolean;
  showMore: () => void;
}

const PAGE = 100;
const CHANGES = ["job", "alias", "reset"] as const;
const SWAP_MS = 1000;
const EVERY_S = 30;

/** The registry, read again when the stream tells of a change, and the processes, watched while they change. */
export function useLive(): Live {
  const [turn, setTurn] = useState(0);
  const wanted = useRef(PAGE);
  const models = useLoaded(() => readRegistry(wanted.current), [], EVERY_S);
  const status = useLoaded(() => ask(api.GET("/models/status")), [], EVERY_S);

  const hasRegistry = models.data !== undefined && models.data.registry !== "none";
  const isLost = useEvents(hasRegistry ? `${serviceUrl()}/events` : undefined, CHANGES, (events) => {
    // A job matters when it has made a version.
    const isNews = ({ type, data }: { type: string; data: unknown }) =>
      type !== "job" || (data as Schemas["JobInfo"]).status === "succeeded";
    if (!events.some(isNews)) return;
    models.reload();
    status.reload();
    setTurn((before) => before + 1);
  });

  const isSwapping = (models.data?.aliases ?? []).some((alias) =>
    progressOf(status.data?.processes ?? [], alias).some(({ state }) => state === "behind"),
  );
  useEffect(() => {
    if (!isSwapping) return;
    const watching = setInterval(() => document.hidden || status.reload(), SWAP_MS);
    return () => clearInterval(watching);
  }, [isSwapping, status.reload]);

  const showMore = () => {
    wanted.current += PAGE;
    models.reload();
  };
  return { models, status, turn, isLost, showMore };
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
