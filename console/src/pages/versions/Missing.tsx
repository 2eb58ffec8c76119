import { api, ask, type Schemas } from "../../api/client";
import { may } from "../../api/session";
import { useLoaded } from "../../api/use";
import { ErrorNote } from "../../components/ErrorNote";
import { address } from "../../router";
import { fitting, type Missing as Kind, MISSING } from "./verdict";

interface Props {
  missing: readonly Kind[];
  version: string;
  /** The version that it is compared with. */
  other: string;
}

/** What was not yet measured of both versions, and the forms that start it. */
export function Missing({ missing, version, other }: Props) {
  const mayStart = may("train");
  const ready = useLoaded(
    async () =>
      mayStart
        ? (await ask(api.GET("/datasets", { params: { query: { status: "ready", limit: 100 } } }))).data
        : [],
    [mayStart],
  );
  return (
    <>
      <ul class="stack close">
        {missing.map((kind) => (
          <li key={kind}>
            <strong>Missing: {MISSING[kind].title}.</strong>{" "}
            {mayStart
              ? ready.data && (
                  <Start sets={fitting(kind, ready.data)} kind={kind} version={version} other={other} />
                )
              : "Starting an evaluation needs a key with the scope train."}
          </li>
        ))}
      </ul>
      <ErrorNote error={ready.error} onRetry={ready.reload} />
    </>
  );
}

interface StartProps {
  sets: readonly Schemas["DatasetInfo"][];
  kind: Kind;
  version: string;
  other: string;
}

function Start({ sets, kind, version, other }: StartProps) {
  if (!sets.length) {
    return (
      <>
        There is no data set for it yet: <a href={address(["data"], { add: "1" })}>add one</a> of the format{" "}
        {MISSING[kind].formats.join(" or ")}.
      </>
    );
  }
  return (
    <>
      Evaluate both on{" "}
      {sets.map(({ id, name }, place) => (
        <span key={id}>
          {place > 0 && (place === sets.length - 1 ? " or " : ", ")}
          <a
            href={address(["new"], { kind: "evaluate", model: version, baseline: other, data: id })}
            title={id}
          >
            {name || id}
          </a>
        </span>
      ))}
      .
    </>
  );
}
