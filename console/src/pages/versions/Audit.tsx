import { useEffect, useRef, useState } from "preact/hooks";
import { api, ask, type Schemas } from "../../api/client";
import type { ApiError } from "../../api/errors";
import { may } from "../../api/session";
import { useAction } from "../../api/use";
import { Button } from "../../components/Button";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { SelectField } from "../../components/SelectField";
import { Skeleton } from "../../components/Skeleton";
import { address } from "../../router";
import { AuditTable } from "./AuditTable";
import { type Alias, useLiveRegistry } from "./live";

type Line = Schemas["PromotionInfo"];

const PAGE = 50;

/** All that was done to aliases, newest first. */
export function Audit({ aliases, chosen }: { aliases: readonly Alias[]; chosen: string }) {
  const names = [...new Set([...aliases.map(({ name }) => name), ...(chosen ? [chosen] : [])])].sort();
  return (
    <div class="stack">
      <div class="version-filter">
        <SelectField
          label="Alias"
          value={chosen}
          options={[["", "All aliases"], ...names.map((name) => [name, name] as const)]}
          onChange={(alias) => {
            location.hash = address(["versions"], { tab: "audit", alias });
          }}
        />
      </div>
      <Lines key={chosen} alias={chosen} />
    </div>
  );
}

function Lines({ alias }: { alias: string }) {
  const { turn } = useLiveRegistry();
  const { lines, hasMore, error, older, reload } = useLines(alias, turn);
  return (
    <>
      <ErrorNote error={error} onRetry={reload} />
      {!lines ? (
        !error && <Skeleton lines={8} />
      ) : lines.length ? (
        <AuditTable caption="What was done to aliases, newest first" lines={lines} />
      ) : (
        <EmptyState title="Nothing is recorded here.">
          {may("admin")
            ? "Every promotion, rollback and lock is recorded here with its reason. Promote a version from its page."
            : "This key sees what was done to the aliases that were given to it."}
        </EmptyState>
      )}
      <ErrorNote error={older.error} />
      {hasMore && (
        <div class="row">
          <Button busy={older.running} onClick={() => older.run()}>
            Show older entries
          </Button>
        </div>
      )}
    </>
  );
}

/** The newest page, read again when an alias has changed, and the older pages that were asked for. */
function useLines(alias: string, turn: number) {
  const [lines, setLines] = useState<Line[]>();
  const [hasMore, setHasMore] = useState(false);
  const [error, setError] = useState<ApiError>();
  const isOlderRead = useRef(false);
  const read = (after?: number) =>
    ask(
      api.GET("/promotions", {
        params: { query: { limit: PAGE, ...(alias && { alias }), ...(after !== undefined && { after }) } },
      }),
    );
  const reload = () => {
    read().then(
      (page) => {
        setError(undefined);
        setLines((before = []) => {
          const last = page.data.at(-1)?.id ?? 0;
          return [...page.data, ...(page.has_more ? before.filter(({ id }) => id < last) : [])];
        });
        if (!isOlderRead.current) setHasMore(page.has_more);
      },
      (failure: ApiError) => setError(failure),
    );
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: a filter makes a new component
  useEffect(reload, [turn]);
  const older = useAction(async () => {
    const page = await read(lines?.at(-1)?.id);
    isOlderRead.current = true;
    setLines((before = []) => [...before, ...page.data]);
    setHasMore(page.has_more);
  });
  return { lines, hasMore, error, older, reload };
}
