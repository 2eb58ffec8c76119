import type { ApiError, Problem } from "../../api/errors";
import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { type Column, Table } from "../../components/Table";
import { bytes, count, counted, duration, MISSING, shortId } from "../../format";
import { address } from "../../router";
import type { Check } from "./check";
import type { Job, Kind } from "./draft";

interface Props {
  kind: Kind;
  check: Check & { current: boolean };
  /** What must be filled in first. */
  missing: string | undefined;
  hasWorker: boolean;
  /** Undefined if there is no control to offer. */
  control: { ticked: boolean; tick: (ticked: boolean) => void } | undefined;
  /** What went wrong beside the fields. */
  error: ApiError | undefined;
  /** What is wrong with fields, at which it stands too. */
  atFields: readonly Problem[];
  submitting: boolean;
  submitted: readonly Job[];
  /** The name in a form that has not been changed since its job was submitted. */
  another: { name: string | undefined } | undefined;
  /** Undefined if the form is as it was at first. */
  onClear: (() => void) | undefined;
}

/** What a dry run found, and the button that it sets free. */
export function CheckPanel(props: Props) {
  const { kind, check, missing, control, submitting, error } = props;
  const ready = check.current && !check.error && !missing;
  const both = control?.ticked;
  return (
    <aside class="card stack job-check" aria-label="Check">
      <div class="row apart">
        <h2>Before it starts</h2>
        <span class="muted small" role="status">
          {missing ? "" : !check.current ? "Checking …" : check.error ? "Needs a change" : "Checked"}
        </span>
      </div>
      <Estimates check={check} kind={kind} both={both ?? false} />
      {control && (
        <label class="job-tick">
          <input
            type="checkbox"
            checked={control.ticked}
            onChange={({ currentTarget }) => control.tick(currentTarget.checked)}
          />
          <span>
            <span class="legend">Train the control too</span>
            <span class="field-help">
              A second job with the same data, order, steps and seed, but without the teacher. Only the
              difference between the two is an effect of the teacher.
            </span>
          </span>
        </label>
      )}
      {!props.hasWorker && (
        <p class="warn-note small" role="note">
          No worker for these jobs is running. You can start the job anyway: it waits until whoever runs the
          service starts a worker with <code>sds-clip worker --queue {kind}</code>.
        </p>
      )}
      <Submitted jobs={props.submitted} another={props.another} />
      <Button type="submit" {...(!props.another && { look: "primary" })} busy={submitting} disabled={!ready}>
        {verb(kind, both ?? false, props.another !== undefined)}
      </Button>
      {missing && <p class="muted small">{missing}</p>}
      {props.atFields.length > 0 && (
        <div role="alert">
          <ul class="stack close field-error" aria-label="Fields to correct">
            {props.atFields.map(({ param, message }) => (
              <li key={`${param} ${message}`}>
                <code>{param}</code>: {message}
              </li>
            ))}
          </ul>
        </div>
      )}
      <ErrorNote error={error} />
      {props.onClear && (
        <Button look="plain" onClick={props.onClear}>
          Clear the form
        </Button>
      )}
    </aside>
  );
}

function verb(kind: Kind, both: boolean, another: boolean): string {
  if (both) return another ? "Start two more jobs" : "Start both jobs";
  const what = kind === "finetune" ? "job" : "evaluation";
  return another ? `Start another ${what}` : `Start the ${what}`;
}

interface Row {
  name: string;
  cells: string[];
}

function Estimates({ check, kind, both }: { check: Check; kind: Kind; both: boolean }) {
  const found = both ? [check.job, check.control] : [check.job];
  const every: Row[] = [
    { name: "Steps", cells: found.map((each) => count(each?.steps)) },
    { name: "Images", cells: found.map((each) => count(each?.images)) },
    { name: "Time", cells: found.map((each) => duration(each?.seconds)) },
    { name: "Memory", cells: found.map((each) => bytes(each?.memory_bytes)) },
  ];
  const rows = every.filter(({ cells }) => cells.some((cell) => cell !== MISSING));
  const columns: Column<Row>[] = [
    { name: "Estimate", cell: ({ name }) => name },
    { name: "Job", number: true, cell: ({ cells }) => cells[0] },
    ...(both ? [{ name: "Control", number: true, cell: ({ cells }: Row) => cells[1] ?? "–" }] : []),
  ];
  return (
    <div class="stack close">
      {kind === "finetune" && rows.length > 0 && (
        <Table
          caption="What the dry run estimates"
          columns={columns}
          rows={rows}
          keyOf={({ name }) => name}
        />
      )}
      <p class="muted small job-basis">
        {check.job ? (
          <Basis check={check} kind={kind} />
        ) : (
          check.error && "There is an estimate once the service accepts these entries."
        )}
      </p>
    </div>
  );
}

function Basis({ check, kind }: { check: Check; kind: Kind }) {
  const { based_on: job, jobs_ahead: ahead } = check.job ?? { based_on: null, jobs_ahead: 0 };
  return (
    <>
      {job ? (
        <>
          Time and memory are those of <a href={address(["jobs", job])}>a similar job</a>.{" "}
        </>
      ) : (
        kind === "finetune" &&
        "The service cannot estimate time and memory yet, because no similar job has succeeded. "
      )}
      {ahead
        ? `${counted(ahead, "job", "jobs")} of this kind ${ahead === 1 ? "is" : "are"} waiting or running before it.`
        : "No job of this kind is ahead of it."}
    </>
  );
}

function Submitted({ jobs, another }: { jobs: readonly Job[]; another: Props["another"] }) {
  if (!jobs.length) return null;
  return (
    <section class="stack close job-submitted" aria-label="Submitted">
      <h3>Submitted</h3>
      <ul class="stack close">
        {jobs.map((job, place) => (
          <li key={job.id}>
            {place ? "The control: " : "The job: "}
            <a href={address(["jobs", job.id])}>{job.name || shortId(job.id)}</a>
          </li>
        ))}
      </ul>
      {another && (
        <p class="small">
          {another.name
            ? `The form is kept for another job, to be called ${another.name}.`
            : "The form is kept for another job."}
        </p>
      )}
    </section>
  );
}
