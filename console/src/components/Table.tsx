import type { ComponentChildren, Key } from "preact";

export interface Column<Row> {
  name: string;
  /** What is seen in the head instead of the name, which is still read out. */
  head?: ComponentChildren;
  /** What is seen below the name. */
  below?: ComponentChildren;
  /** Numbers are set flush right. */
  number?: boolean;
  /** Whether its cells name their rows. */
  names?: boolean;
  cell: (row: Row) => ComponentChildren;
}

interface Props<Row> {
  /** What the table lists, for screen readers. */
  caption: string;
  class?: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  keyOf: (row: Row) => Key;
}

/** A table. On a narrow screen each row is a card, with the name of a column beside its value. */
export function Table<Row>({ caption, class: own = "", columns, rows, keyOf }: Props<Row>) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard
    <section class="table-box" tabIndex={0} aria-label={caption}>
      <table class={`cards ${own}`}>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.name} scope="col" class={column.number ? "number" : undefined}>
                <span class={column.head ? "visually-hidden" : undefined}>{column.name}</span>
                {column.head}
                {column.below}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={keyOf(row)}>
              {columns.map((column) => {
                const Cell = column.names ? "th" : "td";
                return (
                  <Cell
                    key={column.name}
                    scope={column.names ? "row" : undefined}
                    class={column.number ? "number" : undefined}
                    data-name={column.head ? undefined : column.name}
                  >
                    {column.cell(row)}
                  </Cell>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
