const MAX_CHARS = 64;

/** A name for a data set that is like its file's, of characters that the service allows. Empty if nothing is left. */
export function proposedName(file: File | undefined): string {
  return (file?.name ?? "")
    .replace(/\.(tar\.gz|tgz|tar|zip)$/i, "")
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+/, "")
    .replace(/^(ds|job)_/, "$1-") // a name cannot begin like an id
    .slice(0, MAX_CHARS);
}
