/** Data sets by their ids, for their names. */

import { api, ask, type Schemas } from "./client";
import { useLoaded } from "./use";

export type Datasets = ReadonlyMap<string, Pick<Schemas["DatasetInfo"], "name" | "owner">>;

export const NO_DATASETS: Datasets = new Map();

/** One that is gone, or that the caller does not see, is called by its id. */
export function dataName(id: string, datasets: Datasets): string {
  return datasets.get(id)?.name || id;
}

/** The data sets with these ids, as far as they exist and the caller sees them. */
export async function readDatasets(ids: readonly string[]): Promise<Datasets> {
  const found = await Promise.allSettled(
    ids.map((id) => ask(api.GET("/datasets/{dataset_id}", { params: { path: { dataset_id: id } } }))),
  );
  return new Map(
    found.flatMap((each) => (each.status === "fulfilled" ? [[each.value.id, each.value] as const] : [])),
  );
}

export function useNewestDatasets(): Datasets {
  const { data } = useLoaded(() => ask(api.GET("/datasets", { params: { query: { limit: 100 } } })), []);
  return data ? new Map(data.data.map((each) => [each.id, each])) : NO_DATASETS;
}
