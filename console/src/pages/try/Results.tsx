import { useState } from "preact/hooks";
import { serviceUrl } from "../../api/client";
import { currentSession } from "../../api/session";
import { CopyBlock } from "../../components/CopyBlock";
import { Tabs } from "../../components/Tabs";
import { Bars } from "./Bars";
import { Matrix } from "./Matrix";
import { type Answer, TOP_K } from "./request";
import { isChanged } from "./results";
import { type Asked, curl, python } from "./snippets";

type View = "bars" | "matrix" | "curl" | "python";

const TITLES: Record<View, string> = { bars: "Bars", matrix: "Matrix", curl: "curl", python: "Python" };

export function Results({ answer }: { answer: Answer }) {
  const { request, titles, results, matches } = answer;
  const [chosen, setView] = useState<View>("bars");
  const views: View[] = ["bars", ...(matches.length ? (["matrix"] as const) : []), "curl", "python"];
  const view = views.includes(chosen) ? chosen : "bars";
  const changed = results.filter(isChanged).length;
  const asked: Asked = {
    route: `/${request.kind}`,
    url: serviceUrl(),
    files: request.pictures.map(({ file }) => file.name),
    texts: request.texts,
    ...(request.kind === "classify" && { templates: request.templates, topK: TOP_K }),
    models: request.models,
    needsKey: currentSession()?.needs_key ?? false,
  };
  return (
    <section class="stack" aria-label="Results">
      <ul class="row">
        {titles.map((title, model) => (
          <li key={title} class="legend-entry">
            <svg class={`legend-mark series-${model + 1}`} aria-hidden="true">
              <rect width="100%" height="100%" rx="2" />
            </svg>
            {title}
          </li>
        ))}
        {titles.length > 1 && (
          <li class="muted">
            The best text differs for {changed} of {results.length}.
          </li>
        )}
      </ul>
      <Tabs
        label="Views of the results"
        tabs={views.map((name) => ({ name, title: TITLES[name] }))}
        current={view}
        onChange={setView}
      >
        {view === "bars" && <Bars pictures={request.pictures} results={results} />}
        {view === "matrix" && (
          <Matrix
            texts={request.texts}
            pictures={request.pictures}
            answers={matches.map((match, place) => ({ title: titles[place] ?? "", answer: match }))}
          />
        )}
        {view === "curl" && <CopyBlock label="The request for curl" code={curl(asked)} />}
        {view === "python" && <CopyBlock label="The request in Python" code={python(asked)} />}
      </Tabs>
    </section>
  );
}
