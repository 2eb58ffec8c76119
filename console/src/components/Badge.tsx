import type { ComponentChildren } from "preact";

export type Tone = "neutral" | "accent" | "good" | "warn" | "bad";

const OF_STATUS: Record<string, Tone> = {
  running: "accent",
  validating: "accent",
  succeeded: "good",
  ready: "good",
  failed: "bad",
  rejected: "bad",
  damaged: "bad",
  cancelling: "warn",
  pausing: "warn",
  paused: "warn",
};

/** A word in a box. The word says it; the colour only helps to find it. */
export function Badge({ tone = "neutral", children }: { tone?: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

/** The status of a job, a version or a data set. */
export function StatusBadge({ status }: { status: string }) {
  return <Badge tone={OF_STATUS[status] ?? "neutral"}>{status}</Badge>;
}
