import type { Schemas } from "../../api/client";
import { Badge, type Tone } from "../../components/Badge";
import { Button } from "../../components/Button";
import { capital } from "../../format";
import { useLiveRegistry } from "./live";
import { VersionLink } from "./names";
import { isServedByAll, nameOf, type Progress, progressOf, summaryOf } from "./rollout";

const STATES: Record<Progress["state"], { word: string; tone: Tone }> = {
  serving: { word: "serves it", tone: "good" },
  failed: { word: "failed to load it", tone: "bad" },
  behind: { word: "not yet", tone: "warn" },
};

/** Where an alias points after a move, and which processes serve that by now. */
export function Moved({ moved, onClose }: { moved: Schemas["MovedAlias"]; onClose: () => void }) {
  const { status } = useLiveRegistry();
  const answered: Progress[] = (moved.processes ?? []).map(({ state, error, ...process }) => ({
    process: nameOf(process),
    state,
    error,
  }));
  const now = status.data ? progressOf(status.data.processes, moved) : answered;
  // What the answer saw is newer than a report that was read before it.
  const progress = moved.served_by_all && !isServedByAll(now) ? answered : now;
  const failed = progress.some(({ state }) => state === "failed");
  return (
    <div class="stack" role="status">
      <p>
        <strong>{moved.name}</strong> points to <VersionLink id={moved.version} />.{" "}
        {capital(summaryOf(progress))} {progress.length === 1 ? "serves" : "serve"} it
        {isServedByAll(progress) ? "." : failed ? "; see why below." : " so far."}
      </p>
      <ul class="stack close">
        {progress.map(({ process, state, error }) => (
          <li key={process} class="version-process">
            <span>{process}</span>
            <Badge tone={STATES[state].tone}>{STATES[state].word}</Badge>
            {error && <span class="small version-wide">{error}</span>}
          </li>
        ))}
      </ul>
      <div class="row">
        <Button onClick={onClose}>Done</Button>
      </div>
    </div>
  );
}
