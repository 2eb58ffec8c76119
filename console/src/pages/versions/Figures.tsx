import { may } from "../../api/session";
import { count, figure, percent, shareInterval } from "../../format";
import { address } from "../../router";
import { DatasetLink, useDatasets } from "./datasets";
import { evaluationsOf, isShare, type Metric, metricTitle } from "./figures";
import type { Detail } from "./live";

/** What was measured of the version, in one table, so that the numbers stand in columns. */
export function Figures({ detail }: { detail: Detail }) {
  const evaluations = evaluationsOf(detail.evaluations);
  const sets = useDatasets(evaluations.map(({ data }) => data));
  const training = Object.entries(detail.metrics ?? {}).filter(
    (entry): entry is [string, number] => typeof entry[1] === "number",
  );
  return (
    <section class="stack close" aria-labelledby="figures">
      <h2 id="figures">Figures</h2>
      {evaluations.length || training.length ? (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard
        <section class="table-box" tabIndex={0} aria-label="Figures by benchmark">
          <table class="version-figures cards">
            <thead>
              <tr>
                <th scope="col">Metric</th>
                {["Value", "95 % interval", "Items", "Chance"].map((name) => (
                  <th key={name} scope="col" class="number">
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            {evaluations.map(({ name, benchmark, data, metrics }) => (
              <tbody key={name}>
                <tr>
                  <th scope="rowgroup" colSpan={5}>
                    {benchmark}
                    {data && (
                      <span class="muted">
                        {" "}
                        on <DatasetLink id={data} sets={sets} />
                      </span>
                    )}
                  </th>
                </tr>
                {Object.entries(metrics).map(([metric, found]) => (
                  <MetricRow key={metric} name={metricTitle(metric)} metric={found} />
                ))}
              </tbody>
            ))}
            {training.length > 0 && (
              <tbody>
                <tr>
                  <th scope="rowgroup" colSpan={5}>
                    Training and validation
                  </th>
                </tr>
                {training.map(([name, value]) => (
                  <tr key={name}>
                    <th scope="row">{metricTitle(name)}</th>
                    <td class="number" data-name="Value">
                      {isShare(name) ? percent(value) : figure(value)}
                    </td>
                    <td class="version-rest" colSpan={3} />
                  </tr>
                ))}
              </tbody>
            )}
          </table>
        </section>
      ) : (
        <p class="muted">
          Nothing has been measured of it yet.{" "}
          {may("train") && (
            <a href={address(["new"], { kind: "evaluate", model: detail.id })}>Evaluate it.</a>
          )}
        </p>
      )}
    </section>
  );
}

function MetricRow({ name, metric: { value, low, high, n, chance } }: { name: string; metric: Metric }) {
  return (
    <tr>
      <th scope="row">{name}</th>
      <td class="number" data-name="Value">
        {percent(value)}
      </td>
      <td class="number muted" data-name="95 % interval">
        {shareInterval(low, high)}
      </td>
      <td class="number muted" data-name="Items">
        {count(n)}
      </td>
      <td class="number muted" data-name="Chance">
        {percent(chance)}
      </td>
    </tr>
  );
}
