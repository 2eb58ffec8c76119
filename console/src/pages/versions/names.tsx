/** How versions and aliases are named in text. */

import { Badge } from "../../components/Badge";
import { shortId } from "../../format";
import { address } from "../../router";

export function VersionLink({ id }: { id: string }) {
  return (
    <a href={address(["versions", id])} title={id}>
      <code>{shortId(id)}</code>
    </a>
  );
}

const SHORT_JOB = 12;

export function JobLink({ id, short = false }: { id: string; short?: boolean }) {
  return (
    <a href={address(["jobs", id])} title={short ? id : undefined}>
      {short ? id.slice(0, SHORT_JOB) : id}
    </a>
  );
}

export function AliasBadges({ names }: { names: readonly string[] }) {
  return (
    <>
      {names.map((name) => (
        <Badge key={name} tone="accent">
          {name}
        </Badge>
      ))}
    </>
  );
}

/** The end of a reference, which says more than its beginning, as of a path. */
export function shortReference(reference: string): string {
  return reference.includes("/") ? `…/${reference.split("/").pop()}` : reference;
}
