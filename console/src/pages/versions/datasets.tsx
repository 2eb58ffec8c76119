/** The data sets that figures were measured on, by their names. */

import { useEffect, useRef, useState } from "preact/hooks";
import { type Datasets, dataName, NO_DATASETS, readDatasets } from "../../api/datasets";
import { may } from "../../api/session";
import { address } from "../../router";

/** The data sets with these ids, each read once. What stands in place of an id, as in old results, is not asked for. */
export function useDatasets(ids: readonly string[]): Datasets {
  const [sets, setSets] = useState(NO_DATASETS);
  const asked = useRef(new Set<string>());
  const wanted = ids.join();
  // biome-ignore lint/correctness/useExhaustiveDependencies: the ids are in `wanted`
  useEffect(() => {
    if (!may("train")) return;
    const waiting = [...new Set(ids)].filter((id) => /^ds_\w+$/.test(id) && !asked.current.has(id));
    if (!waiting.length) return;
    for (const id of waiting) asked.current.add(id);
    void readDatasets(waiting).then((found) => setSets((before) => new Map([...before, ...found])));
  }, [wanted]);
  return sets;
}

/** A data set by its name, which leads to its page. One that the key does not see stays an id. */
export function DatasetLink({ id, sets }: { id: string; sets: Datasets }) {
  if (!sets.has(id)) return <>{id}</>;
  return (
    <a href={address(["data", id])} title={id}>
      {dataName(id, sets)}
    </a>
  );
}
