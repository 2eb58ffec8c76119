import { isSameVersion } from "../../api/models";
import { textOf } from "./draft";
import { type Editing, SchemaField, Sections } from "./Fields";
import { evaluated, type Inputs, PAIRS } from "./inputs";
import { ChoiceCards, DataPicker, ModelPicker, TeacherPicker } from "./Pickers";
import type { FieldSpec } from "./schema";

/** What has a control of its own. Every other field stands in a section, however new it is. */
const PLACED = new Set(["name", "benchmark", "data", "model", "baseline", "teacher", "scorer", "dry_run"]);

interface Props {
  fields: readonly FieldSpec[];
  inputs: Inputs;
  editing: Editing;
}

export function EvaluateFields({ fields, inputs, editing }: Props) {
  const name = editing.field("name");
  const scorer = editing.field("scorer");
  const [model, baseline] = ["model", "baseline"].map((path) => {
    const field = editing.field(path);
    return field ? textOf(field, editing.values) : "";
  });
  const byTeacher = scorer && textOf(scorer, editing.values) === "diffusion";
  const isSame = !byTeacher && model && baseline && isSameVersion(model, baseline, inputs.models);
  return (
    <>
      <section class="card stack" aria-labelledby="job-benchmark">
        <h2 id="job-benchmark">Benchmark and models</h2>
        <div class="job-grid">
          <DataPicker
            path="data"
            formats={(format) => format !== PAIRS}
            inputs={inputs}
            editing={editing}
            onChange={(id) => editing.set(evaluated(inputs, id))}
          />
          {name && <SchemaField field={name} editing={editing} />}
          {byTeacher ? (
            <TeacherPicker path="teacher" inputs={inputs} editing={editing} />
          ) : (
            <ModelPicker path="model" inputs={inputs} editing={editing} />
          )}
          <ModelPicker path="baseline" inputs={inputs} editing={editing} none="none" />
          {isSame && (
            <p class="warn-note small" role="note">
              Model and baseline are the same version, so the job would find no difference.
            </p>
          )}
        </div>
        <ChoiceCards path="scorer" editing={editing} />
      </section>
      <section class="card stack" aria-labelledby="job-options">
        <h2 id="job-options">Options</h2>
        <Sections
          sections={[{ title: "All other options", fields: fields.filter(({ path }) => !PLACED.has(path)) }]}
          editing={editing}
        />
      </section>
    </>
  );
}
