import type { Reading } from "../../api/prometheus";
import { EmptyState } from "../../components/EmptyState";
import { type Column, Table } from "../../components/Table";
import { Time } from "../../components/Time";
import { count, percent } from "../../format";
import { type History, processOf, type RouteFigures, recentRoutes, routesOf } from "./history";
import { milliseconds } from "./units";

const COLUMNS: Column<RouteFigures>[] = [
  { name: "Route", cell: ({ route }) => <code>{route}</code> },
  { name: "Requests", number: true, cell: ({ requests }) => count(requests) },
  { name: "p50", number: true, cell: ({ p50 }) => milliseconds(p50) },
  { name: "p95", number: true, cell: ({ p95 }) => milliseconds(p95) },
  { name: "p99", number: true, cell: ({ p99 }) => milliseconds(p99) },
  { name: "Failed", number: true, cell: ({ failed }) => percent(failed) },
];

/** Each route's requests and latency: since the process started, and lately. */
export function Routes({ history, reading }: { history: History; reading: Reading }) {
  const all = routesOf(reading);
  const recent = recentRoutes(history);
  return (
    <section class="stack" aria-labelledby="service-routes">
      <div class="row apart">
        <h2 id="service-routes">Routes since the process started</h2>
        <span class="muted small">
          It started <Time at={processOf(reading)} />.
        </span>
      </div>
      {all.length ? (
        <Table
          caption="Figures by route since the process started"
          columns={COLUMNS}
          rows={all}
          keyOf={({ route }) => route}
        />
      ) : (
        <EmptyState title="No requests since the process started.">
          <a href="#/try">Try a picture</a>, and they appear here.
        </EmptyState>
      )}
      <div class="stack close">
        <h3>Since this page was opened, at most the last minute</h3>
        {recent.length ? (
          <Table
            caption="Figures by route since this page was opened"
            columns={COLUMNS}
            rows={recent}
            keyOf={({ route }) => route}
          />
        ) : (
          <p class="muted small">No requests.</p>
        )}
      </div>
    </section>
  );
}
