import { Interval, IntervalAxis, symmetric } from "../../components/Interval";
import { type Column, Table } from "../../components/Table";
import { count, percent, points, pValue } from "../../format";
import { type Difference, isClear, type PairedDifference, pointsInterval } from "./words";

export interface DifferenceRow {
  title: string;
  /** A mean over tags has no counts and no test. */
  of: Difference | PairedDifference;
}

/** A forest plot of differences around the line of no difference, with their numbers beside it. */
export function DifferenceTable(props: { caption: string; of: string; rows: readonly DifferenceRow[] }) {
  const domain = symmetric(props.rows.flatMap(({ of }) => [of.low, of.high]));
  const ticks = [
    [domain[0], points(domain[0], 0)],
    [0, "0"],
    [domain[1], points(domain[1], 0)],
  ] as const;
  const columns: Column<DifferenceRow>[] = [
    { name: props.of, cell: ({ title }) => <span class="results-row">{title}</span> },
    { name: "Points", number: true, cell: ({ of }) => points(of.difference) },
    {
      name: "Difference with its interval, drawn",
      head: <IntervalAxis domain={domain} ticks={ticks} />,
      cell: ({ of: { difference, low, high }, of }) => (
        <Interval value={difference} low={low} high={high} domain={domain} line={0} filled={isClear(of)} />
      ),
    },
    { name: "95 % interval", number: true, cell: ({ of }) => pointsInterval(of.low, of.high) },
    { name: "Before", number: true, cell: ({ of }) => percent(of.baseline) },
    { name: "After", number: true, cell: ({ of }) => percent(of.model) },
    { name: "Chance", number: true, cell: ({ of }) => percent(of.chance) },
    {
      name: "Became right",
      number: true,
      cell: ({ of }) => ("counts" in of ? count(of.counts.gained) : "–"),
    },
    { name: "Became wrong", number: true, cell: ({ of }) => ("counts" in of ? count(of.counts.lost) : "–") },
    { name: "p", number: true, cell: ({ of }) => ("counts" in of ? pValue(of.p_two_sided) : "–") },
  ];
  return <Table caption={props.caption} columns={columns} rows={props.rows} keyOf={({ title }) => title} />;
}
