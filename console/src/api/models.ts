/** What the names of models stand for. */

/** What GET /models lists of names. */
export interface Named {
  models: { name: string; version: string; default: boolean }[];
  aliases?: { name: string; version: string }[];
  versions?: { id: string; aliases: string[] }[];
}

/** The version that a name stands for now, as far as it is listed. No name stands for the default model. */
export function versionNamed(
  name: string,
  { models, aliases = [], versions = [] }: Named,
): string | undefined {
  return (
    aliases.find((alias) => alias.name === name)?.version ??
    models.find((model) => (name ? model.name === name : model.default))?.version ??
    versions.find(({ id }) => id === name)?.id
  );
}

/** Whether two names stand for the same version, so that a comparison of the two finds no difference. */
export function isSameVersion(one: string, other: string, listed: Named | undefined): boolean {
  const found = listed && versionNamed(one, listed);
  return found !== undefined && found === versionNamed(other, listed as Named);
}
