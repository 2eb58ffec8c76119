import { useState } from "preact/hooks";
import { Badge, StatusBadge } from "../../components/Badge";
import { Button } from "../../components/Button";
import type { JobEvent } from "./useJob";

const SHOWN = 30;

/** What happened to a job, the newest first. */
export function Events({ events }: { events: readonly JobEvent[] }) {
  const [all, setAll] = useState(false);
  const shown = events.slice(all ? 0 : -SHOWN).toReversed();
  return (
    <section class="stack close" aria-label="Events">
      <h2>Events</h2>
      {shown.length ? (
        <ol class="job-events">
          {shown.map((event) => (
            <li key={event.id}>
              <Clock at={event.created_at} />
              <span>
                <Level event={event} /> {event.message}
              </span>
            </li>
          ))}
        </ol>
      ) : (
        <p class="muted">Nothing has happened yet.</p>
      )}
      {!all && events.length > SHOWN && (
        <div>
          <Button look="plain" onClick={() => setAll(true)}>
            Show all {events.length}
          </Button>
        </div>
      )}
    </section>
  );
}

function Level({ event: { level, data } }: { event: JobEvent }) {
  if (typeof data?.to === "string") return <StatusBadge status={data.to} />;
  return level === "info" ? null : <Badge tone={level === "error" ? "bad" : "warn"}>{level}</Badge>;
}

function Clock({ at }: { at: number }) {
  const date = new Date(at * 1000);
  return (
    <time class="muted small" dateTime={date.toISOString()} title={date.toLocaleString()}>
      {date.toLocaleTimeString("en-GB")}
    </time>
  );
}
