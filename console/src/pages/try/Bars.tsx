import { Badge } from "../../components/Badge";
import { Bar } from "../../components/Bar";
import { Picture } from "../../components/Picture";
import { percent, points, score } from "../../format";
import type { Shown } from "./Pictures";
import { captionVerdict, isChanged, type PictureResult, type Row } from "./results";

const SERIES = [1, 2] as const;

interface Props {
  pictures: readonly Shown[];
  results: PictureResult[];
  titles: readonly string[];
  /** The text whose words the others swap. */
  caption: string | undefined;
}

/** Each picture with its texts, the most probable first, and what each model says of them. */
export function Bars({ pictures, results, titles, caption }: Props) {
  const compared = results.some(({ best }) => best.length > 1);
  return (
    <div class="stack">
      <p class="muted small">
        Bars and percentages are probabilities. The second number is the cosine similarity
        {compared && ", and the third one the difference in percentage points"}.
      </p>
      <ul class="stack">
        {results.map((result, place) => {
          const picture = pictures[place];
          if (!picture) return null;
          const verdict = caption === undefined ? undefined : captionVerdict(result, caption, titles);
          return (
            <li key={picture.url} class="card reading">
              <Picture src={picture.url} alt={picture.file.name} box={192} />
              <div class="stack close">
                <p class="row apart">
                  <strong>{picture.file.name}</strong>
                  {verdict && <Badge tone={verdict.won ? "good" : "warn"}>{verdict.text}</Badge>}
                  {isChanged(result) && <Badge tone="warn">The best text differs</Badge>}
                </p>
                {result.error && <p class="field-error">{result.error}</p>}
                <ol class="stack">
                  {result.rows.map((row) => (
                    <Readings key={row.text} row={row} best={result.best} caption={caption} />
                  ))}
                </ol>
              </div>
            </li>
          );
        })}
      </ul>
    </div>
  );
}

interface ReadingsProps {
  row: Row;
  best: PictureResult["best"];
  caption: string | undefined;
}

function Readings({ row: { text, readings }, best, caption }: ReadingsProps) {
  const [one, other] = readings;
  return (
    <li>
      <div class="row">
        <p class={text === best[0] ? "reading-best" : undefined}>{text}</p>
        {text === caption && <Badge>caption</Badge>}
      </div>
      {readings.map((reading, model) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a reading is its model's
        <div key={model} class="reading-line">
          <Bar share={reading?.probability ?? 0} series={SERIES[model] ?? 1} />
          <span class="number">{percent(reading?.probability)}</span>
          <span class="number muted" title="Cosine similarity">
            {score(reading?.score)}
          </span>
          {readings.length > 1 && (
            <span class="number" title="Difference in percentage points">
              {model === 1 && one && other ? points(other.probability - one.probability) : ""}
            </span>
          )}
        </div>
      ))}
    </li>
  );
}
