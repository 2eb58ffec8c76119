import type { StateUpdater } from "preact/hooks";
import { Button } from "../../components/Button";
import { Described } from "../../components/Described";
import { type Draft, isChanged, shown } from "./draft";
import { type Editing, SchemaField, Sections } from "./Fields";
import { describeData, type Inputs, PAIRS } from "./inputs";
import { ChoiceCards, DataPicker, ModelPicker, TeacherPicker } from "./Pickers";
import { type FieldSpec, meaningOf, sections } from "./schema";

/** The most benchmarks that a job may name. */
const MAX_BENCHMARKS = 8;
/** What has a control of its own. Every other field stands in a section, however new it is. */
const PLACED = new Set([
  ...["name", "training_data", "validation_data", "base", "objective", "teacher", "promote", "alias"],
  "dry_run",
]);

interface Props {
  fields: readonly FieldSpec[];
  inputs: Inputs;
  editing: Editing;
  draft: Draft;
  setDraft: (next: StateUpdater<Draft>) => void;
}

export function FinetuneFields({ fields, inputs, editing, draft, setDraft }: Props) {
  const isPairs = (format: string) => format === PAIRS;
  const name = editing.field("name");
  const of = (part: string) => fields.filter(({ path }) => path.startsWith(`${part}.`));
  const rest = fields.filter(({ path }) => !path.includes(".") && !PLACED.has(path));
  const changed = of("hyperparameters").filter((field) => isChanged(field, editing.values));
  const reset = () => editing.set(Object.fromEntries(changed.map(({ path }) => [path, undefined])));
  return (
    <>
      <section class="card stack" aria-labelledby="job-data">
        <h2 id="job-data">Data and model</h2>
        <div class="job-grid">
          <DataPicker path="training_data" formats={isPairs} inputs={inputs} editing={editing} />
          <DataPicker
            path="validation_data"
            formats={isPairs}
            inputs={inputs}
            editing={editing}
            none="none"
          />
          <ModelPicker path="base" inputs={inputs} editing={editing} />
          {name && <SchemaField field={name} editing={editing} />}
        </div>
      </section>
      <section class="card stack" aria-labelledby="job-objective">
        <h2 id="job-objective">Objective and teacher</h2>
        <ChoiceCards path="objective" editing={editing} />
        <TeacherPicker
          path="teacher"
          inputs={inputs}
          editing={editing}
          disabled={editing.values.objective === "clip"}
        />
      </section>
      <section class="card stack" aria-labelledby="job-hyperparameters">
        <div class="row apart job-heading">
          <h2 id="job-hyperparameters">Hyperparameters</h2>
          <span class="row">
            <span class="muted small">
              {changed.length
                ? changed.map(({ name, path }) => `${name} ${editing.values[path]}`).join(", ")
                : "All are at their defaults."}
            </span>
            {changed.length > 0 && (
              <Button look="plain" onClick={reset}>
                Reset all
              </Button>
            )}
          </span>
        </div>
        <Sections
          sections={[...sections(of("hyperparameters")), { title: "Seed, limits and labels", fields: rest }]}
          first="Length and batches"
          editing={editing}
        />
      </section>
      <section class="card stack" aria-labelledby="job-after">
        <h2 id="job-after">After the training</h2>
        <Benchmarks inputs={inputs} editing={editing} draft={draft} setDraft={setDraft} />
        <Promotion editing={editing} thresholds={of("thresholds")} />
      </section>
    </>
  );
}

function Benchmarks({ inputs, editing, draft, setDraft }: Omit<Props, "fields">) {
  const offered = inputs.datasets.filter(({ format }) => format !== PAIRS);
  const error = editing.errorAt("evaluate");
  const tick = (data: string, benchmark: string, ticked: boolean) =>
    setDraft((before) => {
      const others = before.evaluate.filter((each) => each.data !== data);
      return { ...before, evaluate: ticked ? [...others, { benchmark, data }] : others };
    });
  return (
    <fieldset class="stack close">
      <legend class="legend">Measure the new version on</legend>
      {offered.length ? (
        <div class="job-ticks">
          {offered.map((dataset) => {
            const ticked = draft.evaluate.some(({ data }) => data === dataset.id);
            return (
              <label key={dataset.id} class="job-tick">
                <input
                  type="checkbox"
                  checked={ticked}
                  disabled={!ticked && draft.evaluate.length >= MAX_BENCHMARKS}
                  onChange={({ currentTarget }) => tick(dataset.id, dataset.format, currentTarget.checked)}
                />
                <span>
                  {describeData(dataset)} <span class="muted small">{dataset.format}</span>
                </span>
              </label>
            );
          })}
        </div>
      ) : (
        <p class="muted small">
          There is no benchmark yet. <a href="#/data?add=1">Upload one</a> to see whether the new version is
          better.
        </p>
      )}
      {error && <p class="field-error">{error}</p>}
    </fieldset>
  );
}

function Promotion({ editing, thresholds }: { editing: Editing; thresholds: FieldSpec[] }) {
  const promote = editing.field("promote");
  const alias = editing.field("alias");
  if (!promote || !alias) return null;
  const chosen = editing.values.promote ?? shown(promote.default);
  return (
    <>
      <div class="job-grid">
        <SchemaField field={promote} editing={editing} />
        {chosen !== "never" && <SchemaField field={alias} editing={editing} />}
      </div>
      {chosen === "if_better" && (
        <>
          <p class="field-help">
            <Described text={`\`if_better\`: ${meaningOf(promote.description, "if_better")}`} />
          </p>
          <div class="job-grid">
            {thresholds.map((field) => (
              <SchemaField key={field.path} field={field} editing={editing} />
            ))}
          </div>
        </>
      )}
    </>
  );
}
