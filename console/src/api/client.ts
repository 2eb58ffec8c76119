/**
 * The one client of the service. Paths, parameters and answers have the types of its OpenAPI description.
 *
 *     const { jobs } = await ask(api.GET("/jobs", { params: { query: { status: "running" } } }));
 *
 * A failed request rejects with an ApiError. Where the session has ended, the sign-in appears by itself.
 */

import createClient, { type Middleware } from "openapi-fetch";
import { ApiError } from "./errors";
import type { components, paths } from "./schema";
import { currentSession, setSession } from "./session";

export type Schemas = components["schemas"];

const SAFE = new Set(["GET", "HEAD"]);

/** Where the service is: the folder of this page, so that the console works below a path of a proxy. */
export function serviceUrl(page: string = document.baseURI): string {
  return new URL(".", page).href.replace(/\/$/, "");
}

/** What a change must send besides its content, so that no other page can make it. */
export function tokenHeaders(): Record<string, string> {
  const token = currentSession()?.csrf_token;
  return token ? { "X-CSRF-Token": token } : {};
}

/** What the service says in an answer that is no success. Where the session has ended, the sign-in appears. */
export function refusal(response: Response): Promise<ApiError> {
  if (response.status === 401) setSession({ signed_in: false, needs_key: true });
  return ApiError.of(response);
}

const policy: Middleware = {
  onRequest({ request }) {
    if (SAFE.has(request.method)) return;
    for (const [name, value] of Object.entries(tokenHeaders())) request.headers.set(name, value);
  },
  async onResponse({ response, schemaPath }) {
    if (response.ok) return;
    throw await (schemaPath === "/session" ? ApiError.of(response) : refusal(response));
  },
  onError({ error }) {
    const aborted = error instanceof DOMException && error.name === "AbortError";
    return aborted ? error : ApiError.unreachable();
  },
};

export function connect(baseUrl: string, fetch: (request: Request) => Promise<Response> = globalThis.fetch) {
  const client = createClient<paths>({ baseUrl, fetch });
  client.use(policy);
  return client;
}

export const api = connect(typeof document === "undefined" ? "" : serviceUrl());

/** The body of an answer. Its absence is an error, which has been thrown before. */
export async function ask<T>(answer: Promise<{ data?: T }>): Promise<T> {
  return (await answer).data as T;
}

/** The body of a request with files. Lists repeat their field, and values that are missing are left out. */
export function form(
  fields: Record<string, string | number | readonly (string | File)[] | undefined>,
): FormData {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined) body.append(name, each instanceof File ? each : String(each));
    }
  }
  return body;
}
