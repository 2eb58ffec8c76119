/** Holds the place of this many lines while they are loaded. */
export function Skeleton({ lines = 3 }: { lines?: number }) {
  return (
    <div class="skeleton" role="status" style={{ height: `${lines * 3}rem` }}>
      <span class="visually-hidden">Loading</span>
    </div>
  );
}
