/** Versions as a tree: each stands below the version that it was made from. */

export interface Made {
  id: string;
  base?: string | null;
  base_version: string | null;
  created_at: number;
}

export interface Row<V extends Made> {
  id: string;
  /** Undefined for a base that the service does not list, or does not show to this key. */
  version: V | undefined;
  /** What the versions below call it. It is all that is known of a base that is not listed. */
  name: string | null;
  depth: number;
  /** For each level from the second on: whether a line leads on to a version further down. The last one is its own. */
  lines: boolean[];
}

/** All versions, each once and below its base, the newest first among those of one base. */
export function treeOf<V extends Made>(versions: readonly V[]): Row<V>[] {
  const known = new Map(versions.map((version) => [version.id, version]));
  const made = new Map<string, V[]>();
  for (const version of known.values()) {
    const base = version.base_version ?? "";
    made.set(base, [...(made.get(base) ?? []), version]);
  }
  const newest = (id: string): number =>
    Math.max(known.get(id)?.created_at ?? 0, ...(known.has(id) ? [] : (made.get(id) ?? []).map(created)));
  const rows: Row<V>[] = [];
  const seen = new Set<string>();

  const add = (id: string, lines: boolean[]) => {
    seen.add(id);
    const below = (made.get(id) ?? []).toSorted(newestFirst);
    rows.push({ id, version: known.get(id), name: below[0]?.base ?? null, depth: lines.length, lines });
    for (const child of below) {
      const isLast = below.slice(below.indexOf(child) + 1).every((later) => seen.has(later.id));
      if (!seen.has(child.id)) add(child.id, [...lines, !isLast]);
    }
  };

  const roots = new Set<string>();
  for (const { id, base_version } of known.values()) {
    if (!base_version) roots.add(id);
    else if (!known.has(base_version)) roots.add(base_version);
  }
  for (const id of [...roots].sort((one, other) => newest(other) - newest(one))) add(id, []);
  // No version is its own base, but a tree that ends must not depend on it: the oldest of a circle begins it.
  for (const { id } of [...known.values()].sort((one, other) => created(one) - created(other))) {
    if (!seen.has(id)) add(id, []);
  }
  return rows;
}

/** The bases that no version of these is. */
export function missingBases(versions: readonly Made[]): string[] {
  const known = new Set(versions.map(({ id }) => id));
  const bases = new Set(versions.map(({ base_version }) => base_version));
  return [...bases].filter((base): base is string => base !== null && !known.has(base));
}

/** The versions, and those of their bases that are known without being listed, back to the first. */
export function withBases<V extends Made>(
  versions: readonly V[],
  details: ReadonlyMap<string, V | null>,
): V[] {
  const bases = missingBases(versions)
    .map((id) => details.get(id))
    .filter((base): base is V => Boolean(base));
  return bases.length ? withBases([...versions, ...bases], details) : [...versions];
}

const created = ({ created_at }: Made) => created_at;
const newestFirst = (one: Made, other: Made) => created(other) - created(one);
