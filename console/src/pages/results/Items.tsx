import { useRef, useState } from "preact/hooks";
import { api, ask, type Schemas } from "../../api/client";
import { usePages } from "../../api/use-pages";
import { Button } from "../../components/Button";
import { EmptyState } from "../../components/EmptyState";
import { ErrorNote } from "../../components/ErrorNote";
import { SelectField } from "../../components/SelectField";
import { Skeleton } from "../../components/Skeleton";
import { count } from "../../format";
import type { Totals } from "./figures";
import type { Filters, Flip } from "./filters";
import { ItemCard } from "./ItemCard";
import { countsOf } from "./items";
import { ShownField } from "./ShownField";
import { titleOf } from "./words";

const PAGE = 10;
const FLIPS = [
  ["right_to_wrong", "Right to wrong"],
  ["wrong_to_right", "Wrong to right"],
  ["changed", "Changed"],
  ["same", "Unchanged"],
] as const satisfies [Flip, string][];
const RIGHTS = [
  ["right", "Right"],
  ["wrong", "Wrong"],
] as const;

interface Props {
  id: string;
  /** The evaluation that came before; null for the job's own baseline. Without one, nothing is compared. */
  other?: string | null;
  outcome?: string;
  filters: Filters;
  tags: readonly string[];
  /** Those of all items that have the chosen tag. */
  counts?: Schemas["PairedCountsInfo"] | undefined;
  /** Those of a single evaluation. */
  totals?: Totals | undefined;
  onFilters: (filters: Filters) => void;
}

/** The items of an evaluation with their pictures, filtered, and loaded some at a time. */
export function Items({
  id,
  other,
  outcome,
  filters: { tag, flip, right, ...rest },
  tags,
  counts,
  totals: known,
  onFilters,
}: Props) {
  const compared = other !== undefined;
  const items = usePages(
    (last?: Schemas["ItemInfo"]) => {
      const query = {
        limit: PAGE,
        ...(rest.on && { on: rest.on }),
        ...(other && { with: other }),
        ...(tag && { tag }),
        ...(compared && flip && { flip, ...(outcome && { outcome }) }),
        ...(!compared && right && { right: right === "right", ...(outcome && { outcome }) }),
        ...(last && { after: last.index }),
      };
      return ask(api.GET("/jobs/{job_id}/items", { params: { path: { job_id: id }, query } }));
    },
    [id, rest.on, other, (flip || right) && outcome, tag, flip, right],
  );
  const feed = useFeed(items.items?.length ?? 0, items.hasMore ? items.more : undefined);
  const totals = counts && countsOf(counts);
  const total = compared ? totals?.[flip ?? ""] : known?.[right ?? ""];
  const kept = { ...rest, ...(flip && { flip }), ...(right && { right }) };
  return (
    <div class="stack">
      <div class="results-filters">
        {compared ? (
          <ShownField
            legend="Change"
            value={flip}
            choices={FLIPS}
            totals={totals}
            onChange={(next) => onFilters({ ...rest, ...(tag && { tag }), ...(next && { flip: next }) })}
          />
        ) : (
          <ShownField
            legend={titleOf(outcome ?? "")}
            value={right}
            choices={RIGHTS}
            totals={known}
            onChange={(next) => onFilters({ ...rest, ...(tag && { tag }), ...(next && { right: next }) })}
          />
        )}
        {(tags.length > 0 || tag) && (
          <SelectField
            label="Tag"
            value={tag ?? ""}
            onChange={(next) => onFilters({ ...kept, ...(next && { tag: next }) })}
            options={[
              ["", "Any"],
              ...[...new Set([...tags, ...(tag ? [tag] : [])])].map((each) => [each, each] as const),
            ]}
          />
        )}
      </div>
      {items.items && items.items.length > 0 && <Legend has={items.items.some(({ scores }) => scores)} />}
      {!items.items && !items.error && <Skeleton lines={8} />}
      {items.items?.length === 0 && !items.error && !items.loading && (
        <EmptyState title="No item fits these filters.">
          {compared ? "Choose another change or tag." : "Choose other ones."}
        </EmptyState>
      )}
      <div
        ref={feed.element}
        class="stack"
        role="feed"
        aria-busy={items.loading}
        aria-label="Items"
        onKeyDown={feed.onKeyDown}
      >
        {items.items?.map((item, place) => (
          <ItemCard
            key={item.index}
            item={item}
            compared={compared}
            place={place + 1}
            total={total ?? -1}
            isCurrent={place === feed.current}
            onFocus={() => feed.setCurrent(place)}
          />
        ))}
      </div>
      <ErrorNote error={items.error} onRetry={items.more} />
      {items.hasMore && !items.error && (
        <p class="row">
          <Button busy={items.loading} onClick={items.more}>
            Show more
          </Button>
          <span class="muted">
            {count(items.items?.length)}{" "}
            {total === undefined ? "items are shown" : `of ${count(total)} items are shown`}.
          </span>
        </p>
      )}
    </div>
  );
}

function Legend({ has }: { has: boolean }) {
  return (
    <p class="small muted">
      {has && (
        <>
          Scores: ↔ is the best picture for a caption, the highest of its row; ↕ is the best caption for a
          picture, the highest of its column. Framed is what belongs together.{" "}
        </>
      )}
      Numbers beside ✓ (right) and ✗ (wrong) are margins, which must be above 0. Click an item, or go to it
      with the Tab key: J and K then go to the next and the previous one.
    </p>
  );
}

/** One stop of the Tab key for all items, and keys that go to the next and the previous one. */
function useFeed(length: number, more: (() => void) | undefined) {
  const element = useRef<HTMLDivElement>(null);
  const [current, setCurrent] = useState(0);
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { j: 1, k: -1 }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = current + step;
    if (next === length) more?.();
    (element.current?.children[next] as HTMLElement | undefined)?.focus();
  };
  return { element, current: Math.min(current, Math.max(0, length - 1)), setCurrent, onKeyDown };
}
