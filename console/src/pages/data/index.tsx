import { may } from "../../api/session";
import { EmptyState } from "../../components/EmptyState";
import type { PageProps } from "..";
import { AddData } from "./AddData";
import { DataList } from "./DataList";
import { DataSetPage } from "./DataSetPage";
import { filtersOf } from "./filters";
import "./data.css";

/** `#/data` lists the data sets, `#/data?add=1` adds one, and `#/data/ID` shows one. */
export function DataPage({ rest, query }: PageProps) {
  const [id] = rest;
  if (!may("train")) {
    return (
      <div class="page">
        <h1>Data</h1>
        <EmptyState title="Your key cannot see data sets.">
          It lacks the scope <code>train</code>. Whoever runs the service makes a key that has it with{" "}
          <code>sds-clip keys create NAME --scope infer --scope train</code>.
        </EmptyState>
      </div>
    );
  }
  if (id) return <DataSetPage key={id} id={id} />;
  return query.has("add") ? <AddData /> : <DataList filters={filtersOf(query)} />;
}
