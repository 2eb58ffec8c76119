import type { Schemas } from "../../api/client";
import { ApiError } from "../../api/errors";
import { may } from "../../api/session";
import { Badge } from "../../components/Badge";
import { Described } from "../../components/Described";
import { ErrorNote } from "../../components/ErrorNote";
import { type Column, Table } from "../../components/Table";
import { address } from "../../router";
import { DatasetLink, useDatasets } from "./datasets";
import { partsOf } from "./figures";
import { JobLink, VersionLink } from "./names";
import { effectOf, figureTitle, ruleOf, shownValue, VERDICTS } from "./verdict";

type Check = Schemas["GateCheck"];

const COLUMNS: Column<Check>[] = [
  { name: "Figure", cell: figureTitle },
  { name: "Value", number: true, cell: shownValue },
  { name: "Must be", number: true, cell: ruleOf },
  {
    name: "Result",
    cell: ({ passed }) => <Badge tone={passed ? "good" : "bad"}>{passed ? "pass" : "fail"}</Badge>,
  },
];

/** What a dry run of a promotion found: what would happen, and what the gate says with which evidence. */
export function Verdict({ plan }: { plan: Schemas["PromotionPlan"] }) {
  const { gate, error } = plan;
  const { word, tone, link } = VERDICTS[gate.verdict];
  const sets = useDatasets(gate.checks.map(({ on }) => partsOf(on).data));
  const measuredOn: Column<Check> = {
    name: "On",
    cell: ({ on }) => {
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
      {error && <ErrorNote error={new ApiError(error.message, 0, error.code)} />}
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
          <Described text={gate.why} />
        </p>
        {gate.verdict === "unknown" && gate.compared_with && may("train") && (
          <p>
            <a
              href={address(["new"], {
                kind: "evaluate",
                model: plan.to_version,
                baseline: gate.compared_with,
              })}
            >
              Evaluate the two
            </a>
            , once on each of these benchmarks. The verdict appears here when the jobs have ended.
          </p>
        )}
      </div>
      {gate.checks.length > 0 && (
        <Table
          caption="The gate’s conditions"
          columns={[measuredOn, ...COLUMNS]}
          rows={gate.checks}
          keyOf={({ on, figure }) => `${on} ${figure}`}
        />
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
