import type { Scope } from "./api/session";
import { EmptyState } from "./components/EmptyState";

/** What stands in place of a page that the caller's key does not allow. */
export function NotAllowed({ title, scope }: { title: string; scope: Scope }) {
  return (
    <div class="page">
      <h1>{title}</h1>
      <EmptyState title="Your key does not allow this page.">
        It lacks the scope <code>{scope}</code>. Whoever runs the service makes a key that has it with{" "}
        <code>sds-clip keys create NAME --scope infer --scope train</code>.
      </EmptyState>
    </div>
  );
}
