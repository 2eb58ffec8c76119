import { relative } from "../format";

/** A time, in seconds since the Unix epoch, as "3 min ago". The whole date is its title. */
export function Time({ at }: { at: number | null | undefined }) {
  if (at == null) return <span class="muted">–</span>;
  const date = new Date(at * 1000);
  return (
    <time dateTime={date.toISOString()} title={date.toLocaleString()}>
      {relative(at, Date.now() / 1000)}
    </time>
  );
}
