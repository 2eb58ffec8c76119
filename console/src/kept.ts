import { type StateUpdater, useState } from "preact/hooks";

const kept = new Map<string, unknown>();

/** State that is still there when the reader comes back to the page, until the console is loaded again. */
export function useKept<T>(name: string, initial: T): [T, (next: StateUpdater<T>) => void] {
  return useKeptIn(kept, name, initial);
}

/** The same for plain values, which are also there when the console is loaded again in the same tab. */
export function useKeptInTab<T>(name: string, initial: T): [T, (next: StateUpdater<T>) => void] {
  return useKeptIn(TAB, name, initial);
}

/** Forget everything, because another person may use the tab next. */
export function forget(): void {
  kept.clear();
  sessionStorage.clear();
}

type Place = Pick<Map<string, unknown>, "has" | "get"> & { set: (name: string, value: unknown) => void };

const TAB: Place = {
  has: (name) => sessionStorage.getItem(name) !== null,
  get: (name) => JSON.parse(sessionStorage.getItem(name) ?? "null"),
  set: (name, value) => sessionStorage.setItem(name, JSON.stringify(value)),
};

function useKeptIn<T>(kept: Place, name: string, initial: T): [T, (next: StateUpdater<T>) => void] {
  const [value, setValue] = useState<T>(() => (kept.has(name) ? (kept.get(name) as T) : initial));
  const keep = (next: StateUpdater<T>) =>
    setValue((before) => {
      const after = typeof next === "function" ? (next as (before: T) => T)(before) : next;
      kept.set(name, after);
      return after;
    });
  return [value, keep];
}
