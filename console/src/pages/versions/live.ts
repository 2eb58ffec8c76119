/** What the pages of versions show, as it changes. */

import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import { api, ask, type Schemas, serviceUrl } from "../../api/client";
import { type Loaded, useLoaded, useReloaded } from "../../api/use";
import { type Arrived, useEvents } from "../../api/use-events";
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
  /** Grows when an alias has changed or a job has succeeded: what depends on them is read again then. */
  turn: number;
  isLost: boolean;
  showMore: () => void;
}

const PAGE = 100;
const CHANGES = ["job", "alias", "reset"] as const;
const EVERY_S = 30;

/** The registry, read again when the stream tells of a change, and the processes, watched while they change. */
export function useLive(): Live {
  const [turn, setTurn] = useState(0);
  const wanted = useRef(PAGE);
  const models = useLoaded(() => readRegistry(wanted.current), [], EVERY_S);
  const status = useLoaded(() => ask(api.GET("/models/status")), [], EVERY_S);

  const hasRegistry = models.data !== undefined && models.data.registry !== "none";
  const isLost = useEvents(hasRegistry ? `${serviceUrl()}/events` : undefined, CHANGES, (events) => {
    if (!events.some((event) => isNews(event, models.data?.aliases ?? []))) return;
    models.reload();
    status.reload();
    setTurn((before) => before + 1);
  });

  const isSwapping = (models.data?.aliases ?? []).some((alias) =>
    progressOf(status.data?.processes ?? [], alias).some(({ state }) => state === "behind"),
  );
  useReloaded(isSwapping, status.reload);

  const showMore = () => {
    wanted.current += PAGE;
    models.reload();
  };
  return { models, status, turn, isLost, showMore };
}

/** A job matters when it has made or measured a version. A stream begins with all aliases, moved or removed or not. */
export function isNews({ type, data }: Arrived, shown: readonly Alias[]): boolean {
  if (type === "job") return (data as Schemas["JobInfo"]).status === "succeeded";
  if (type !== "alias") return true;
  const told = data as Alias;
  const before = shown.find(({ name }) => name === told.name);
  return told.removed_at === null ? JSON.stringify(before) !== JSON.stringify(told) : before !== undefined;
}

export const LiveContext = createContext<Live | undefined>(undefined);

export function useLiveRegistry(): Live {
  const live = useContext(LiveContext);
  if (!live) throw new Error("This component stands outside the pages of versions.");
  return live;
}

/** Call `reload` when an alias has changed or a job has succeeded. */
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
