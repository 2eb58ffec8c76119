import { Bar } from "../../components/Bar";
import { percent } from "../../format";
import { badOf, type DataSet, grouped, sizeOf, unlisted, verdict } from "./findings";

/** The result of the check: a sentence, the share that can be used, and the problems by kinds. */
export function CheckCard({ set }: { set: DataSet }) {
  const size = sizeOf(set);
  const more = unlisted(set);
  return (
    <section class="card stack" aria-labelledby="findings" aria-live="polite">
      <h2 id="findings">{titleOf(set)}</h2>
      <p>{verdict(set)}</p>
      {set.being_checked && <progress class="data-progress" aria-label="The check is running" />}
      {size && size.all > 0 && <Usable share={1 - badOf(set) / size.all} />}
      {grouped(set.problems ?? []).map(({ code, title, messages }) => (
        <section key={code} class="stack close" aria-label={title}>
          <h3>
            {title} <code class="muted">{code}</code>
          </h3>
          <ul class="data-problems small">
            {messages.map((message, place) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: two problems may have the same words
              <li key={place}>{message}</li>
            ))}
          </ul>
        </section>
      ))}
      {more && <p class="muted small">{more}</p>}
    </section>
  );
}

function titleOf({ status, being_checked }: DataSet): string {
  if (status !== "validating") return "The check";
  return being_checked ? "The check is running" : "Waiting for a worker";
}

function Usable({ share }: { share: number }) {
  return (
    <div class="data-usable">
      <span class="muted">Usable</span>
      <Bar share={share} />
      <span class="number">{percent(share)}</span>
    </div>
  );
}
