/** What the check of a data set says, in a sentence and by kinds of problems. */

import type { Schemas } from "../../api/client";
import { count, counted, percent, words } from "../../format";

export type DataSet = Schemas["DatasetInfo"];

/** The service lists no more problems than these, but counts all. */
const LISTED = 20;

const TITLES: Record<string, string> = {
  missing_file: "Missing files",
  image_unreadable: "Images that cannot be read",
  bad_caption: "Missing, empty or broken captions",
  item_unusable: "Items that cannot be used",
  bad_data: "The data cannot be used as given",
  invalid_benchmark: "The files are not what this format needs",
  check_failed: "The check did not end",
};

export interface Group {
  code: string;
  title: string;
  messages: string[];
}

/** The problems by their codes, in the order in which the check found them. */
export function grouped(problems: readonly Record<string, unknown>[]): Group[] {
  const groups = new Map<string, Group>();
  for (const { code, message } of problems) {
    const name = String(code);
    const group = groups.get(name) ?? { code: name, title: titleOf(name), messages: [] };
    group.messages.push(String(message));
    groups.set(name, group);
  }
  return [...groups.values()];
}

/** "archive_too_large" as "Archive too large", unless there is a better text. */
function titleOf(code: string): string {
  return TITLES[code] ?? words(code);
}

/** How much there is, and of what: samples of pairs, or a benchmark's items. Undefined before the check. */
export function sizeOf({ counts }: DataSet): { all: number; one: "sample" | "item" } | undefined {
  if (counts?.samples !== undefined) return { all: counts.samples, one: "sample" };
  return counts?.items === undefined ? undefined : { all: counts.items, one: "item" };
}

/** How many samples or items cannot be used. */
export function badOf(set: DataSet): number {
  const size = sizeOf(set);
  return size ? size.all - (set.counts?.usable ?? size.all) : 0;
}

/** What came out of the check. */
export function verdict(set: DataSet): string {
  const size = sizeOf(set);
  const bad = badOf(set);
  const share = size?.all ? bad / size.all : 0;
  const of = size && `${count(bad)} of ${counted(size.all, size.one)} (${percent(share)}) cannot be used`;
  const allowed = set.max_bad_share
    ? `up to ${percent(set.max_bad_share)} may be unusable`
    : "none may be unusable";
  switch (set.status) {
    case "validating":
      return set.being_checked
        ? "A worker reads every file and decodes every image. This page shows the result when it ends."
        : "The check begins as soon as a worker is free for it. Data sets are checked one after another.";
    case "deleted":
      return "The data set was deleted, with its files. Its record stays for the jobs that used it.";
    case "rejected":
      return of && bad
        ? `The data set was rejected: ${of}, and ${allowed}.`
        : "The data set was rejected, and jobs cannot use it. Fix what is listed here, and add it again.";
    default:
      if (!size) return "The check found nothing wrong.";
      if (!bad) return `The check found nothing wrong: all ${counted(size.all, size.one)} can be used.`;
      return `${of}, and ${bad === 1 ? "is" : "are"} left out: ${allowed}.`;
  }
}

/** Says that not all problems are listed, where that is so. */
export function unlisted(set: DataSet): string | undefined {
  const listed = set.problems?.length ?? 0;
  const all = Math.max(set.counts?.problems ?? 0, badOf(set));
  if (listed < LISTED || all <= listed) return undefined;
  return `These are the first ${listed} of ${count(all)} problems.`;
}
