import type { Schemas } from "../../api/client";
import { dataName } from "../../api/datasets";
import { ApiError } from "../../api/errors";
import { Badge } from "../../components/Badge";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { type Column, Table } from "../../components/Table";
import { DatasetLink, useDatasets } from "./datasets";
import { partsOf } from "./figures";
import { Missing } from "./Missing";
import { JobLink, VersionLink } from "./names";
import {
  comparedText,
  comparedTitle,
  effectOf,
  figureTitle,
  reasonOf,
  refusalOf,
  ruleOf,
  shownValue,
  VERDICTS,
} from "./verdict";

type Check = Schemas["GateCheck"];
type Figure = Schemas["GateFigure"];

const COLUMNS: Column<Check>[] = [
  { name: "Figure", cell: figureTitle },
  { name: "Value", number: true, cell: shownValue },
  { name: "Must be", number: true, cell: ruleOf },
  {
    name: "Result",
    cell: ({ passed }) => <Badge tone={passed ? "good" : "bad"}>{passed ? "pass" : "fail"}</Badge>,
  },
];

const COMPARED: Column<Figure>[] = [
  { name: "Figure", cell: comparedTitle },
  { name: "Before → after", number: true, cell: comparedText },
];

interface Props {
  plan: Schemas["PromotionPlan"];
  /** Opens the question that unlocks the alias, if the caller may. */
  onUnlock: (() => void) | undefined;
}

/** What a dry run of a promotion found: what would happen, and what the gate says with which evidence. */
export function Verdict({ plan, onUnlock }: Props) {
  const { gate, error } = plan;
  const { word, tone, link } = VERDICTS[gate.verdict];
  const refusal = refusalOf(plan);
  const sets = useDatasets([...gate.checks, ...gate.figures].map(({ on }) => partsOf(on).data));
  const measuredOn = {
    name: "On",
    cell: ({ on }: { on: string }) => {
      const { benchmark, data } = partsOf(on);
      return (
        <>
          {benchmark} {data && <DatasetLink id={data} sets={sets} />}
        </>
      );
    },
  };
  return (
    <div class="stack">
      <p>{effectOf(plan)}</p>
      {error && refusal && <ErrorNote error={new ApiError(refusal, 0, error.code)} />}
      {error?.code === "alias_locked" && (
        <p class="row">
          {onUnlock ? (
            <Button onClick={onUnlock}>Unlock {plan.name}…</Button>
          ) : (
            "Unlocking needs a key with the scope admin."
          )}
        </p>
      )}
      <div class="stack close">
        <p class="row">
          <Badge tone={tone}>{word}</Badge>
          {gate.compared_with && (
            <span>
              {link} <VersionLink id={gate.compared_with} />
            </span>
          )}
        </p>
        <p class={gate.verdict === "unknown" ? "" : "muted small"}>
          {reasonOf(gate, (data) => dataName(data, sets))}
        </p>
        {gate.compared_with && gate.missing.length > 0 && (
          <Missing missing={gate.missing} version={plan.to_version} other={gate.compared_with} />
        )}
      </div>
      {gate.checks.length > 0 ? (
        <Table
          caption="The gate’s conditions"
          columns={[measuredOn, ...COLUMNS]}
          rows={gate.checks}
          keyOf={({ on, figure }) => `${on} ${figure}`}
        />
      ) : (
        gate.figures.length > 0 && (
          <Table
            caption="What was measured of both versions"
            columns={[measuredOn, ...COMPARED]}
            rows={gate.figures}
            keyOf={({ on, figure }) => `${on} ${figure}`}
          />
        )
      )}
      {gate.evidence.length > 0 && (
        <p class="muted small">
          Measured by{" "}
          {gate.evidence.map((job, place) => (
            <span key={job}>
              {place > 0 && ", "}
              <JobLink id={job} />
            </span>
          ))}
        </p>
      )}
    </div>
  );
}
