/** Who uses the console. Without API keys on the service, nobody needs to sign in. */

export interface Session {
  signed_in: boolean;
  /** Whether the service has API keys, so that a key must be given. */
  needs_key: boolean;
  key?: { name: string; scopes: string[] } | null;
  /** What every change must send as `X-CSRF-Token`. */
  csrf_token?: string | null;
}

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
export function may(...scopes: string[]): boolean {
  if (!session?.needs_key) return true;
  return scopes.some((scope) => session?.key?.scopes.includes(scope));
}
