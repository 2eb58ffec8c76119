import { api, ask, type Schemas } from "./client";

export type Dataset = Schemas["DatasetInfo"];
export type Datasets = ReadonlyMap<string, Dataset>;

/** The data sets with these ids, as far as they exist and the caller sees them. */
export async function readDatasets(ids: readonly string[]): Promise<Datasets> {
  const found = await Promise.allSettled(
    ids.map((id) => ask(api.GET("/datasets/{dataset_id}", { params: { path: { dataset_id: id } } }))),
  );
  return new Map(
    found.flatMap((each) => (each.status === "fulfilled" ? [[each.value.id, each.value] as const] : [])),
  );
}
