/** Who uses the console. Without API keys on the service, nobody needs to sign in. */

import type { components } from "./schema";

export type Session = Omit<components["schemas"]["SessionInfo"], "object">;
export type Scope = components["schemas"]["SessionKey"]["scopes"][number];

let session: Session | null = null;
const listeners = new Set<(session: Session | null) => void>();

export function currentSession(): Session | null {
  return session;
}

export function setSession(next: Session | null): void {
  session = next;
  for (const listener of listeners) listener(next);
}

export function onSession(listener: (session: Session | null) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Whether the caller may do what needs one of these scopes. Without keys, everybody may do everything. */
export function may(...scopes: Scope[]): boolean {
  const key = session?.key;
  return !key || scopes.some((scope) => key.scopes.includes(scope));
}
