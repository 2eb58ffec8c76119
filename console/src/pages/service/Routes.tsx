import { EmptyState } from "../../components/EmptyState";
import { type Column, Table } from "../../components/Table";
import { percent } from "../../format";
import { type History, type RouteFigures, routesOf } from "./history";
import { decimal, milliseconds } from "./units";

const COLUMNS: Column<RouteFigures>[] = [
  { name: "Route", cell: ({ route }) => <code>{route}</code> },
  { name: "Requests/s", number: true, cell: ({ perS }) => decimal(perS, 2) },
  { name: "p50", number: true, cell: ({ p50 }) => milliseconds(p50) },
  { name: "p95", number: true, cell: ({ p95 }) => milliseconds(p95) },
  { name: "p99", number: true, cell: ({ p99 }) => milliseconds(p99) },
  { name: "Failed", number: true, cell: ({ failed }) => percent(failed) },
];

export function Routes({ history }: { history: History }) {
  const rows = routesOf(history);
  return (
    <section class="stack close" aria-labelledby="service-routes">
      <h2 id="service-routes">Routes in the last minute</h2>
      {rows.length ? (
        <Table caption="Figures by route" columns={COLUMNS} rows={rows} keyOf={({ route }) => route} />
      ) : (
        <EmptyState title="No requests in the last minute.">
          <a href="#/try">Try a picture</a>, and they appear here.
        </EmptyState>
      )}
    </section>
  );
}
