import type { PageProps } from "..";
import { AddData } from "./AddData";
import { DataList } from "./DataList";
import { DataSetPage } from "./DataSetPage";
import { readFilters } from "./filters";
import "./data.css";

/** `#/data` lists the data sets, `#/data?add=1` adds one, and `#/data/ID` shows one. */
export function DataPage({ rest, query }: PageProps) {
  const [id] = rest;
  if (id) return <DataSetPage key={id} id={id} />;
  return query.has("add") ? <AddData /> : <DataList filters={readFilters(query)} />;
}
