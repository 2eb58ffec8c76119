import type { Schemas } from "../../api/client";
import { count } from "../../format";
import { type Bin, bins, described, isLabelled } from "./histogram";

/** So many labels of three digits have room below the bars where the screen is narrow. */
const LABELS = 6;

interface Props {
  title: string;
  /** What the values are: "words". */
  unit: string;
  /** What is counted: "captions". */
  of: string;
  histogram: Schemas["Histogram"];
}

/** A histogram as bars of the stored bins, with its numbers as a table. */
export function HistogramCard({ title, unit, of, histogram }: Props) {
  const found = bins(histogram);
  const most = Math.max(...histogram.counts, 0);
  const [only] = found;
  return (
    <figure class="card stack close">
      <figcaption>
        <h2>{title}</h2>
      </figcaption>
      {found.length === 1 && only ? (
        <p>
          {count(only.count)} {of}, each with {only.label} {unit}.
        </p>
      ) : (
        <div role="img" aria-label={`${title}. ${described(found, unit)}`} class="data-bars">
          <span class="data-most small muted">{count(most)}</span>
          {found.map((bin, place) => (
            <div key={bin.label} class="data-bin" title={`${bin.label} ${unit}: ${count(bin.count)} ${of}`}>
              <svg aria-hidden="true">
                <rect
                  class="series-1"
                  width="100%"
                  height={`${bin.height * 100}%`}
                  y={`${(1 - bin.height) * 100}%`}
                />
              </svg>
              <span class="small muted">
                {isLabelled(place, found.length, LABELS) && axisLabel(bin, place === found.length - 1)}
              </span>
            </div>
          ))}
        </div>
      )}
      <details>
        <summary class="small">Numbers</summary>
        <table class="data-numbers small">
          <thead>
            <tr>
              <th scope="col">{unit}</th>
              <th scope="col" class="number">
                {of}
              </th>
            </tr>
          </thead>
          <tbody>
            {found.map((bin) => (
              <tr key={bin.label}>
                <th scope="row">{bin.label}</th>
                <td class="number">{count(bin.count)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </figure>
  );
}

/** Bins are named by where they begin. The last one may be wider than the others. */
function axisLabel({ label }: Bin, isLast: boolean): string | undefined {
  return isLast ? label : label.split("–")[0];
}
