import { moment, relative } from "../format";

interface Props {
  /** In seconds since the Unix epoch. */
  at: number | null | undefined;
  /** Whether the date is seen too, and not only the title. */
  full?: boolean;
}

/** A time as "3 min ago". The whole date is its title. */
export function Time({ at, full = false }: Props) {
  if (at == null) return <span class="muted">–</span>;
  const date = moment(at);
  return (
    <time dateTime={new Date(at * 1000).toISOString()} title={date}>
      {relative(at, Date.now() / 1000)}
      {full && <span class="time-date muted small">{date}</span>}
    </time>
  );
}
