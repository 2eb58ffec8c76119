import { api, ask } from "../../api/client";
import { ApiError } from "../../api/errors";
import type { Detail } from "./live";

/** The beginning of an id, such as the one that the pages show. */
const BEGINNING = /^[0-9a-f]{6,63}$/;

/** A version by its id, by an alias, or by the beginning of an id if no other version's begins so. */
export async function findVersion(name: string): Promise<Detail> {
  try {
    return await readVersion(name);
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404 && BEGINNING.test(name))) throw error;
    const page = await ask(api.GET("/models", { params: { query: { name, limit: 10 } } }));
    const [only, ...others] = (page.versions ?? []).filter(({ id }) => id.startsWith(name)); // not by an alias
    if (!only || others.length) throw error;
    return await readVersion(only.id);
  }
}

function readVersion(version: string): Promise<Detail> {
  return ask(api.GET("/models/{version}", { params: { path: { version } } }));
}
