import { type Column, Table } from "../../components/Table";
import { figure, percent } from "../../format";
import { type Curves, seriesOf, VALIDATION } from "./curves";
import { type Job, titleOf } from "./job";

/** The curves of all steps of a job, and perhaps of another one beside it. */
export interface Compared {
  job: string;
  curves: Curves;
  other: { job: Job; curves: Curves } | undefined;
}

interface Measured {
  name: string;
  title: string;
  before: number | null | undefined;
  own: number | null | undefined;
  other: number | null | undefined;
}

/** A share of right answers, or a loss. */
const measured = (name: string, value: number | null | undefined) =>
  name === "validation_clip" ? figure(value) : percent(value);

/** What was measured on the validation data, of the base and of the trained models. */
export function Validation({ drawn: { job, curves, other } }: { drawn: Compared }) {
  const rows = VALIDATION.filter(({ name }) => curves[name]).map(
    ({ name, title }): Measured => ({
      name,
      title,
      before: curves[`base_${name}`]?.last.value,
      own: curves[name]?.last.value,
      other: other?.curves[name]?.last.value,
    }),
  );
  if (!rows.length) return null;
  const columns: Column<Measured>[] = [
    { name: "Figure", cell: ({ title }) => <span class="job-value">{title}</span> },
    { name: "Base", number: true, cell: ({ name, before }) => measured(name, before) },
    { name: job, number: true, cell: ({ name, own }) => measured(name, own) },
  ];
  if (other)
    columns.push({ name: titleOf(other.job), number: true, cell: (row) => measured(row.name, row.other) });
  return (
    <section class="stack close" aria-label="Validation">
      <h3 class="muted">Validation</h3>
      <Table caption="On the validation data" columns={columns} rows={rows} keyOf={({ title }) => title} />
    </section>
  );
}

interface Last {
  title: string;
  own: number | null | undefined;
  other: number | null | undefined;
  step: number | undefined;
}

/** What the charts end with, as a table. */
export function LastValues({
  drawn,
  figures,
}: {
  drawn: Compared;
  figures: readonly { name: string; title: string }[];
}) {
  const rows = figures.map(({ name, title }): Last => {
    const own = seriesOf(drawn.curves, name);
    const other = drawn.other && seriesOf(drawn.other.curves, name);
    return { title, step: own.steps.at(-1), own: own.values.at(-1), other: other?.values.at(-1) };
  });
  const columns: Column<Last>[] = [
    { name: "Figure", cell: ({ title }) => title },
    { name: "Step", number: true, cell: ({ step }) => figure(step) },
    { name: drawn.job, number: true, cell: ({ own }) => figure(own) },
  ];
  if (drawn.other) {
    columns.push({ name: titleOf(drawn.other.job), number: true, cell: ({ other }) => figure(other) });
  }
  return (
    <details>
      <summary>The last values as a table</summary>
      <Table caption="Last values of the curves" columns={columns} rows={rows} keyOf={({ title }) => title} />
    </details>
  );
}
