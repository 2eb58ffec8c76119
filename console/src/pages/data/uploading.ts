/** The upload that is under way. It goes on while the reader looks at other pages. */

import { useEffect, useState } from "preact/hooks";
import { form, type Schemas, serviceUrl } from "../../api/client";
import { ApiError } from "../../api/errors";
import { upload } from "../../api/upload";
import { announce } from "../../components/Announcer";
import { address } from "../../router";
import { type Reading, withReading } from "./pace";

export interface Wanted {
  name: string;
  format: string;
  max_bad_share: number;
  /** One archive, or shards. */
  files: readonly File[];
  kind: "file" | "shards";
}

export interface Uploading {
  wanted: Wanted;
  total: number;
  readings: Reading[];
  /** Why it failed. It is over then. */
  error?: ApiError;
}

let current: Uploading | undefined;
let control = new AbortController();
const listeners = new Set<(current: Uploading | undefined) => void>();

/** Send a data set. Then its page opens, if the reader still looks at the data. Returns whether it has arrived. */
export async function start(wanted: Wanted): Promise<boolean> {
  control = new AbortController();
  const total = wanted.files.reduce((sum, { size }) => sum + size, 0);
  set({ wanted, total, readings: [{ atMs: performance.now(), sent: 0 }] });
  addEventListener("beforeunload", ask);
  try {
    const added = await upload<Schemas["DatasetInfo"]>(`${serviceUrl()}/datasets`, bodyOf(wanted), {
      signal: control.signal,
      onProgress: (sent, whole) => {
        if (!current) return;
        const readings = withReading(current.readings, { atMs: performance.now(), sent });
        set({ ...current, total: whole, readings });
      },
    });
    set(undefined);
    announce(`${added.name || "The data set"} is uploaded. Its check begins.`);
    if (location.hash.startsWith("#/data")) location.hash = address(["data", added.id]);
    return true;
  } catch (error) {
    if (current && error instanceof ApiError) {
      set({ ...current, error });
      const isSeen = location.hash.startsWith("#/data");
      announce(`The upload failed. ${isSeen ? "This page" : "The page Data"} says why.`);
    } else {
      set(undefined);
      announce("The upload was cancelled, and nothing of it is kept.");
    }
    return false;
  } finally {
    removeEventListener("beforeunload", ask);
  }
}

export function cancel(): void {
  control.abort();
}

/** Forget an upload that has failed, once something of it was changed. */
export function forget(): void {
  if (current?.error) set(undefined);
}

export function useUploading(): Uploading | undefined {
  const [shown, show] = useState(current);
  useEffect(() => {
    show(current);
    listeners.add(show);
    return () => void listeners.delete(show);
  }, []);
  return shown;
}

function set(next: Uploading | undefined): void {
  current = next;
  for (const listener of listeners) listener(next);
}

/** The fields come before the files, so that an error in them is told before gigabytes are sent. */
function bodyOf({ name, format, max_bad_share, files, kind }: Wanted): FormData {
  return form({ name: name || undefined, format, max_bad_share, [kind]: files });
}

/** The browser asks before it leaves the page, which would end the upload. */
function ask(event: BeforeUnloadEvent): void {
  event.preventDefault();
}
