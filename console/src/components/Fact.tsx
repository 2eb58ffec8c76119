import type { ComponentChildren } from "preact";

/** A line of a list of facts, which is left out if nothing is known. */
export function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  if (!children) return null;
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}
