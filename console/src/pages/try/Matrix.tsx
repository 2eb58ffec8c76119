import { useState } from "preact/hooks";
import type { Schemas } from "../../api/client";
import { Picture } from "../../components/Picture";
import { SelectField } from "../../components/SelectField";
import { percent, score } from "../../format";
import type { Shown } from "./Pictures";
import { isBest, type Measure, matrix } from "./results";

const MEASURES: Record<Measure, string> = {
  texts: "Which text, given the picture: each column adds up to 100 %",
  pictures: "Which picture, given the text: each row adds up to 100 %",
  cosine: "Cosine similarity",
};

interface Props {
  texts: readonly string[];
  pictures: readonly Shown[];
  answers: readonly { title: string; answer: Schemas["MatchResponse"] }[];
}

/** Every text against every picture, for each model. */
export function Matrix({ texts, pictures, answers }: Props) {
  const [chosen, setMeasure] = useState<Measure>("texts");
  // The service compares the pictures if there are several.
  const measures: Measure[] = ["texts", ...(pictures.length > 1 ? (["pictures"] as const) : []), "cosine"];
  const measure = measures.includes(chosen) ? chosen : "texts";
  const tables = answers.map(({ answer }) => matrix(texts, answer, measure));
  return (
    <div class="stack">
      <SelectField
        label="Numbers"
        value={measure}
        options={measures.map((name) => [name, MEASURES[name]])}
        onChange={setMeasure}
      />
      {answers.map(({ title }, model) => (
        <div key={title} class="stack close">
          {answers.length > 1 && <h2>{title}</h2>}
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard */}
          <section class="table-box" tabIndex={0} aria-label={`Texts and pictures, ${title}`}>
            <table class="matrix">
              <thead>
                <tr>
                  <td />
                  {pictures.map(({ url, file }) => (
                    <th key={url} scope="col" class="number">
                      <Picture src={url} alt={file.name} box={64} />
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {texts.map((text, t) => (
                  <tr key={text}>
                    <th scope="row">{text}</th>
                    {pictures.map(({ url }, p) => {
                      const value = tables[model]?.[t]?.[p];
                      const [first, mine] = [tables[0] ?? [], tables[model] ?? []].map((table) =>
                        isBest(table, measure, t, p),
                      );
                      return (
                        <td
                          key={url}
                          class={`number ${mine ? "matrix-best" : ""}`}
                          style={{ "--share": measure === "cosine" ? 0 : (value ?? 0) }}
                        >
                          {measure === "cosine" ? score(value) : percent(value)}
                          {mine !== first && (
                            <abbr title="The other version chooses differently here"> ≠</abbr>
                          )}
                        </td>
                      );
                    })}
                  </tr>
                ))}
              </tbody>
            </table>
          </section>
        </div>
      ))}
    </div>
  );
}
