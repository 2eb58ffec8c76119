import { useRef, useState } from "preact/hooks";
import { useAction } from "../../api/use";
import { announce } from "../../components/Announcer";
import { Form } from "../../components/Form";
import { words } from "../../format";
import { useKeptInTab } from "../../kept";
import { CheckPanel } from "./CheckPanel";
import { submit, useCheck } from "./check";
import {
  bodyOf,
  type Draft,
  isAt,
  type Job,
  type Kind,
  nextName,
  problemsIn,
  proposedName,
  textOf,
  type Values,
} from "./draft";
import { EvaluateFields } from "./EvaluateFields";
import type { Editing } from "./Fields";
import { FinetuneFields } from "./FinetuneFields";
import { firstDraft, type Inputs } from "./inputs";
import type { FieldSpec } from "./schema";

interface Props {
  kind: Kind;
  inputs: Inputs;
  query: URLSearchParams;
}

export function JobForm({ kind, inputs, query }: Props) {
  const fields = inputs.fields[kind];
  const first = firstDraft(kind, inputs, query);
  const [draft, setDraft] = useKeptInTab<Draft>(`new ${kind} ${query}`, first);
  const [submitted, setSubmitted] = useState<readonly Job[]>([]);
  /** What the form held after the last job was submitted. */
  const [after, setAfter] = useState<Draft>();
  const [tried, setTried] = useState("");
  const keys = useRef(new Map<string, string>());

  const field = (path: string) => fields.find((each) => each.path === path);
  const textAt = (path: string) => {
    const found = field(path);
    return found ? textOf(found, draft.values) : "";
  };
  const objective = textAt("objective");
  const hasControl = kind === "finetune" && objective !== "clip";
  const control = hasControl && draft.control;
  const isUsed = objective !== "clip" && textAt("scorer") !== "clip";
  const body = bodyOf(
    fields,
    isUsed ? draft : { ...draft, values: changed(draft.values, { teacher: undefined }) },
  );
  const request = JSON.stringify([body, control]);
  const missing = whatIsMissing(fields, draft.values);
  const check = useCheck(kind, missing ? undefined : body, control);
  const sending = useAction(async () => {
    setTried(request);
    const key = keys.current.get(request) ?? randomKey();
    keys.current.set(request, key);
    const jobs = await submit(kind, body, control, key);
    keys.current.delete(request);
    setSubmitted(jobs);
    const { name } = draft.values;
    const next = name ? { ...draft, values: { ...draft.values, name: nextName(name) } } : draft;
    setDraft(next);
    setAfter(next);
    announce(jobs.length > 1 ? "Both jobs are submitted." : "The job is submitted.");
  });
  const failure = tried === request ? sending.error : undefined;
  const error = failure ?? (missing ? undefined : check.error);
  const isAccepted = check.current && !error && !missing;
  const problems = isAccepted ? [] : problemsIn(fields, draft.values, error?.problems ?? []);
  const atFields = problems.filter(
    (each) => isAt(each, "evaluate") || fields.some(({ path }) => isAt(each, path)),
  );

  const editing: Editing = {
    field,
    values: draft.values,
    set: (changes) => setDraft((before) => ({ ...before, values: changed(before.values, changes) })),
    errorAt: (path) => problems.find((each) => isAt(each, path))?.message,
  };
  const tick = (ticked: boolean) => {
    if (ticked && !draft.values.name?.trim()) editing.set({ name: proposedName(objective, new Date()) });
    setDraft((before) => ({ ...before, control: ticked }));
  };

  return (
    <Form class="job-form" onSubmit={sending.run}>
      <div class="stack">
        {kind === "finetune" ? (
          <FinetuneFields
            fields={fields}
            inputs={inputs}
            editing={editing}
            draft={draft}
            setDraft={setDraft}
          />
        ) : (
          <EvaluateFields fields={fields} inputs={inputs} editing={editing} />
        )}
      </div>
      <CheckPanel
        kind={kind}
        check={check}
        missing={missing}
        hasWorker={inputs.workers.some(({ alive, queue }) => alive && queue === kind)}
        control={hasControl ? { ticked: control, tick } : undefined}
        error={error?.problems.every((each) => atFields.includes(each)) ? undefined : error}
        atFields={atFields}
        submitting={sending.running}
        submitted={submitted}
        another={draft === after ? { name: draft.values.name } : undefined}
        onClear={JSON.stringify(draft) === JSON.stringify(first) ? undefined : () => setDraft(first)}
      />
    </Form>
  );
}

function changed(values: Values, changes: Record<string, string | undefined>): Values {
  const all = Object.entries({ ...values, ...changes });
  return Object.fromEntries(all.filter((entry): entry is [string, string] => entry[1] !== undefined));
}

/** The benchmark is not asked for: the data set says which one it is. */
function whatIsMissing(fields: readonly FieldSpec[], values: Values): string | undefined {
  const empty = fields.find(
    (field) =>
      (field.required || (field.path === "model" && values.scorer !== "diffusion")) &&
      field.path !== "benchmark" &&
      !textOf(field, values).trim(),
  );
  return empty && `Choose the ${words(empty.name).toLowerCase()} first.`;
}

/** Not `randomUUID`, which browsers offer on localhost and over HTTPS alone. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}
