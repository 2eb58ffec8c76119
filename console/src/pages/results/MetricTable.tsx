import { Interval, IntervalAxis } from "../../components/Interval";
import { type Column, Table } from "../../components/Table";
import { count, percent, shareInterval } from "../../format";
import type { Metric } from "./figures";

export const SHARES = [0, 1] as const;
const TICKS = [
  [0, "0 %"],
  [0.5, "50 %"],
  [1, "100 %"],
] as const;

export interface MetricRow {
  title: string;
  metric: Metric;
}

/** A share with its interval, drawn on a scale from 0 to 100 % with chance as a dashed line. */
export function ShareInterval({ of }: { of: Metric | undefined }) {
  if (!of) return null;
  return <Interval value={of.value} low={of.low} high={of.high} domain={SHARES} line={of.chance} />;
}

export const SHARES_AXIS = <IntervalAxis domain={SHARES} ticks={TICKS} />;

/** Metrics as dots with intervals and the line of chance, and their numbers beside them. */
export function MetricTable({
  caption,
  of,
  rows,
}: {
  caption: string;
  of: string;
  rows: readonly MetricRow[];
}) {
  const columns: Column<MetricRow>[] = [
    { name: of, cell: ({ title }) => <span class="results-row">{title}</span> },
    { name: "Value", number: true, cell: ({ metric }) => percent(metric.value) },
    {
      name: "Interval and chance, drawn",
      head: SHARES_AXIS,
      cell: ({ metric }) => <ShareInterval of={metric} />,
    },
    { name: "95 % interval", number: true, cell: ({ metric }) => shareInterval(metric.low, metric.high) },
    { name: "Chance", number: true, cell: ({ metric }) => percent(metric.chance) },
    { name: "Items", number: true, cell: ({ metric }) => count(metric.n) },
    { name: "Ties", number: true, cell: ({ metric }) => count(metric.ties) },
  ];
  return <Table caption={caption} columns={columns} rows={rows} keyOf={({ title }) => title} />;
}
