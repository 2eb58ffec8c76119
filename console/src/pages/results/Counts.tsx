import { Fact } from "../../components/Fact";
import { count, pValue } from "../../format";
import type { PairedDifference } from "./words";

/** McNemar's table of an outcome, and what his exact test says. */
export function Counts({ title, of }: { title: string; of: PairedDifference }) {
  const { both, gained, lost, neither } = of.counts;
  return (
    <section class="stack" aria-labelledby="counts">
      <h2 id="counts">{title}, item by item</h2>
      <div class="results-counts">
        <div class="table-box">
          <table>
            <caption class="visually-hidden">How many items were right before and after</caption>
            <thead>
              <tr>
                <td />
                <th scope="col" class="number">
                  Right after
                </th>
                <th scope="col" class="number">
                  Wrong after
                </th>
              </tr>
            </thead>
            <tbody>
              <tr>
                <th scope="row">Right before</th>
                <td class="number">{count(both)}</td>
                <td class="number">
                  <strong>{count(lost)}</strong>
                </td>
              </tr>
              <tr>
                <th scope="row">Wrong before</th>
                <td class="number">
                  <strong>{count(gained)}</strong>
                </td>
                <td class="number">{count(neither)}</td>
              </tr>
            </tbody>
          </table>
        </div>
        <dl class="facts">
          <Fact name="Better, one-sided p">{pValue(of.p_better)}</Fact>
          <Fact name="Different, two-sided p">{pValue(of.p_two_sided)}</Fact>
          <Fact name="Test">McNemar’s, exact, on the items that changed</Fact>
        </dl>
      </div>
    </section>
  );
}
