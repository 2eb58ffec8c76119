import { score } from "../../format";
import { cells } from "./items";

/** Two captions against two pictures. What wins its row or its column is marked by a sign and by its weight. */
export function Scores({ title, scores }: { title: string; scores: readonly (readonly number[])[] }) {
  const table = cells(scores);
  return (
    <table class="results-scores">
      <caption>{title}</caption>
      <thead>
        <tr>
          <td />
          {["A", "B"].map((picture) => (
            <th key={picture} scope="col" class="number">
              {picture}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {table.map((row, caption) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: a caption is known by its place
          <tr key={caption}>
            <th scope="row">{caption + 1}</th>
            {row.map((cell, picture) => (
              <td
                // biome-ignore lint/suspicious/noArrayIndexKey: a picture is known by its place
                key={picture}
                class={`number ${cell.winsRow || cell.winsColumn ? "results-wins" : ""} ${cell.belongs ? "results-belongs" : ""}`}
              >
                {score(cell.value)}
                <Mark shown={cell.winsRow} sign="↔" means="the best picture for this caption" />
                <Mark shown={cell.winsColumn} sign="↕" means="the best caption for this picture" />
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Mark({ shown, sign, means }: { shown: boolean; sign: string; means: string }) {
  if (!shown) return <span class="results-mark" />;
  return (
    <span class="results-mark" role="img" aria-label={means} title={means}>
      {sign}
    </span>
  );
}
