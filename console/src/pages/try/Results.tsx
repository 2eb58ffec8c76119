import { useState } from "preact/hooks";
import { serviceUrl } from "../../api/client";
import { currentSession } from "../../api/session";
import { CopyBlock } from "../../components/CopyBlock";
import { Tabs } from "../../components/Tabs";
import { Bars } from "./Bars";
import { Matrix } from "./Matrix";
import type { Shown } from "./Pictures";
import { type Answer, isSame, type Request, TOP_K } from "./request";
import { isChanged } from "./results";
import { type Asked, curl, python } from "./snippets";

type View = "bars" | "matrix" | "curl" | "python";

const TITLES: Record<View, string> = { bars: "Bars", matrix: "Matrix", curl: "curl", python: "Python" };

interface Props {
  answer: Answer;
  /** What the form asks now. */
  current: Request;
  /** What the form lacks for a request. */
  missing: string | undefined;
}

export function Results({ answer, current, missing }: Props) {
  const { request, titles, results, matches } = answer;
  const [chosen, setView] = useState<View>("bars");
  const views: View[] = ["bars", ...(matches.length ? (["matrix"] as const) : []), "curl", "python"];
  const view = views.includes(chosen) ? chosen : "bars";
  const changed = results.filter(isChanged).length;
  const isOld = !isSame(request, current);
  const isCode = view === "curl" || view === "python";
  return (
    <section class="stack" aria-label="Results" data-old={isOld}>
      {isOld && (
        <p class="warn-note try-old" role="status">
          The input has changed, and these results are of the former one.{" "}
          {current.kind === "classify" ? "Classify" : "Match"} again.
        </p>
      )}
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
        {view === "bars" && (
          <Bars pictures={request.pictures} results={results} titles={titles} caption={request.caption} />
        )}
        {view === "matrix" && (
          <Matrix
            texts={request.texts}
            pictures={request.pictures}
            answers={matches.map((match, place) => ({ title: titles[place] ?? "", answer: match }))}
          />
        )}
        {view !== "bars" && <Failures pictures={request.pictures} results={results} />}
        {isCode && <Code view={view} request={current} missing={missing} />}
      </Tabs>
    </section>
  );
}

/** Why pictures have no scores. The bars tell it at each picture. */
function Failures({ pictures, results }: { pictures: readonly Shown[]; results: Answer["results"] }) {
  return results.map(
    ({ error }, place) =>
      error && (
        <p key={pictures[place]?.url} class="field-error">
          {pictures[place]?.file.name}: {error}
        </p>
      ),
  );
}

interface CodeProps {
  view: "curl" | "python";
  request: Request;
  missing: string | undefined;
}

/** What the form asks now, to be sent from elsewhere. */
function Code({ view, request, missing }: CodeProps) {
  if (missing) return <p class="muted">{missing}</p>;
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
    <div class="stack close">
      <p class="muted small">
        Run this in the folder of the pictures.
        {request.pictures.map(
          ({ file, url, unsaved }) =>
            unsaved && (
              <>
                {" "}
                <a key={url} href={url} download={file.name}>
                  Save {file.name}
                </a>{" "}
                there first.
              </>
            ),
        )}
      </p>
      {view === "curl" ? (
        <CopyBlock label="The request for curl" code={curl(asked)} />
      ) : (
        <CopyBlock label="The request in Python" code={python(asked)} />
      )}
    </div>
  );
}
