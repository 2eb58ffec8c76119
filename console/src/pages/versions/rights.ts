/** Why a key may not do something to a version. The service decides; this only says it before the button. */

import type { Schemas } from "../../api/client";
import { counted } from "../../format";

type Alias = Schemas["AliasInfo"];
type Version = Schemas["VersionInfo"];
type Key = { name: string; scopes: string[] } | null | undefined;

const isAdmin = (key: Key) => !key || key.scopes.includes("admin");

/** Whether the caller may move an alias. A key without the scope admin may move those that were given to it. */
export function mayMove(key: Key, alias: Alias): boolean {
  return !key || isAdmin(key) || (key.scopes.includes("train") && alias.owner === key.name);
}

export function whyNotPromote(key: Key, version: Version, aliases: readonly Alias[]): string | undefined {
  if (version.status === "deleted") return "A deleted version cannot be promoted.";
  if (version.status === "damaged") return "Its files are damaged. Repair them before you promote it.";
  if (!key || isAdmin(key)) return undefined;
  if (!key.scopes.includes("train")) return "Promoting needs a key with the scope admin.";
  if (!aliases.some((alias) => mayMove(key, alias))) {
    return "Promoting needs the scope admin, or an alias that was given to this key.";
  }
  return version.owner === key.name
    ? undefined
    : "This key can promote only versions that its own jobs made.";
}

export function whyNotDelete(key: Key, version: Version, children: number): string | undefined {
  const [alias] = version.aliases;
  if (version.status === "deleted") return "It is deleted already.";
  if (!isAdmin(key) && !(key?.scopes.includes("train") && key.name === version.owner)) {
    return "Only its owner and keys with the scope admin can delete it.";
  }
  if (alias) return `It cannot be deleted while the alias ${alias} points to it.`;
  if (children) {
    return `It cannot be deleted while ${counted(children, "version is", "versions are")} based on it.`;
  }
  return undefined;
}

export function whyNotDownload(key: Key, version: Version): string | undefined {
  if (!version.downloadable) {
    return version.status === "ready"
      ? "It is the operator’s own model, which cannot be downloaded."
      : `A ${version.status} version cannot be downloaded.`;
  }
  return !key || key.scopes.includes("train") ? undefined : "Downloading needs a key with the scope train.";
}
