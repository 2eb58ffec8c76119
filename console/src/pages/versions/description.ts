/** A version's description, whose form depends on what made the version. */

/** A value by its path, such as "configuration.objective", as text; undefined if there is none. */
export function textAt(description: Record<string, unknown>, path: string): string | undefined {
  let found: unknown = description;
  for (const part of path.split(".")) {
    if (typeof found !== "object" || found === null) return undefined;
    found = (found as Record<string, unknown>)[part];
  }
  return found === null || found === undefined ? undefined : textOf(found);
}

/** Every value below a part of the description, by its path. Empty values are left out. */
export function entriesOf(found: unknown, path = ""): [string, string][] {
  if (found === null || found === undefined || found === "") return [];
  if (typeof found !== "object" || Array.isArray(found)) return [[path, textOf(found)]];
  return Object.entries(found).flatMap(([name, value]) => entriesOf(value, path ? `${path}.${name}` : name));
}

const MAX_ITEMS = 8;

function textOf(found: unknown): string {
  if (!Array.isArray(found)) return typeof found === "object" ? JSON.stringify(found) : String(found);
  const items = found.slice(0, MAX_ITEMS).map(textOf).join(", ");
  return found.length > MAX_ITEMS ? `${items} and ${found.length - MAX_ITEMS} more` : items;
}
