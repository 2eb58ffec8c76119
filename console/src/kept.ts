import { type StateUpdater, useState } from "preact/hooks";

const kept = new Map<string, unknown>();

/** State that is still there when the reader comes back to the page, until the console is loaded again. */
export function useKept<T>(name: string, initial: T): [T, (next: StateUpdater<T>) => void] {
  const [value, setValue] = useState<T>(() => (kept.has(name) ? (kept.get(name) as T) : initial));
  const keep = (next: StateUpdater<T>) =>
    setValue((before) => {
      const after = typeof next === "function" ? (next as (before: T) => T)(before) : next;
      kept.set(name, after);
      return after;
    });
  return [value, keep];
}
