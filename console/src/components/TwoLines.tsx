import type { ComponentChildren } from "preact";

interface Props {
  class?: string;
  /** What is said of it in small letters, if there is something. */
  below: ComponentChildren;
  children: ComponentChildren;
}

/** A cell of a list. */
export function TwoLines({ class: own = "", below, children }: Props) {
  return (
    <span class={`two-lines ${own}`}>
      {children}
      {below && <span class="muted small">{below}</span>}
    </span>
  );
}
