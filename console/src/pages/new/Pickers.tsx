import { Described } from "../../components/Described";
import { type Group, SelectField } from "../../components/SelectField";
import { shortId, words } from "../../format";
import { versionsGroup } from "../try/Versions";
import { textOf } from "./draft";
import { type Editing, SchemaField } from "./Fields";
import { describeData, type Inputs } from "./inputs";
import { meaningOf } from "./schema";

interface PickerProps {
  path: string;
  inputs: Inputs;
  editing: Editing;
  /** The words for no choice. */
  none?: string;
}

interface SelectProps {
  path: string;
  editing: Editing;
  groups: readonly Group[];
  none?: string | undefined;
  disabled?: boolean;
  onChange?: (value: string) => void;
}

/** One of several names. One that was given and is not among them, as by a duplicated job, is offered too. */
function Select({ path, editing, groups, none, disabled = false, onChange }: SelectProps) {
  const field = editing.field(path);
  if (!field) return null;
  const value = textOf(field, editing.values);
  const known = !value || groups.some(({ options }) => options.some(([name]) => name === value));
  return (
    <SelectField
      label={words(field.name)}
      help={<Described text={field.description} />}
      error={editing.errorAt(field.path)}
      disabled={disabled}
      value={value}
      options={[
        ...(none !== undefined || !value ? [["", none ?? "Choose one"] as const] : []),
        ...(known ? [] : [[value, shortId(value)] as const]),
        ...groups.filter(({ options }) => options.length > 0),
      ]}
      onChange={onChange ?? ((chosen) => editing.set({ [field.path]: chosen }))}
    />
  );
}

/** Ready data sets, by their formats. */
export function DataPicker({
  formats,
  onChange,
  ...props
}: PickerProps & { formats: (format: string) => boolean; onChange?: (id: string) => void }) {
  const fitting = props.inputs.datasets.filter(({ format }) => formats(format));
  const groups = [...new Set(fitting.map(({ format }) => format))].map((format) => ({
    title: format,
    options: fitting
      .filter((each) => each.format === format)
      .map((each) => [each.id, describeData(each)] as const),
  }));
  return <Select {...props} groups={groups} {...(onChange && { onChange })} />;
}

/** Aliases, versions and the references that jobs can name. */
export function ModelPicker({ inputs, ...props }: PickerProps) {
  const { models } = inputs;
  if (!models) return <Typed {...props} />;
  const { aliases = [], versions = [], bases = [] } = models;
  const named = aliases.map(({ name, version }) => [name, `${name} · now ${shortId(version)}`] as const);
  const hasDefault = aliases.some(({ name }) => name === "default");
  const unnamed = hasDefault ? [] : [["default", "default · the model in service"] as const];
  const groups = [
    { title: "Aliases", options: [...unnamed, ...named] },
    versionsGroup(versions),
    { title: "References", options: bases.map((name) => [name, name] as const) },
  ];
  return <Select {...props} groups={groups} />;
}

/** The teachers that the operator allows. */
export function TeacherPicker({ inputs, ...props }: PickerProps & { disabled?: boolean }) {
  if (!inputs.models) return <Typed {...props} />;
  const options = (inputs.models.teachers ?? []).map((name) => [name, name] as const);
  const none = options.length ? "none" : "none (the operator allows teachers with SDS_CLIP_ALLOWED_TEACHERS)";
  return <Select {...props} groups={[{ title: "Teachers", options }]} none={none} />;
}

/** For a key that may not list the names. */
function Typed({ path, editing }: { path: string; editing: Editing }) {
  const field = editing.field(path);
  return field ? <SchemaField field={field} editing={editing} /> : null;
}

/** The choices of a field as cards, each with what it means. */
export function ChoiceCards({ path, editing }: { path: string; editing: Editing }) {
  const field = editing.field(path);
  if (!field) return null;
  const value = textOf(field, editing.values);
  const error = editing.errorAt(field.path);
  return (
    <fieldset class="stack close">
      <legend class="legend">{words(field.name)}</legend>
      {!field.choices.some((choice) => meaningOf(field.description, choice)) && (
        <p class="field-help">
          <Described text={field.description} />
        </p>
      )}
      <div class="job-cards">
        {field.choices.map((choice) => (
          <label key={choice} class="job-card">
            <input
              type="radio"
              name={field.path}
              checked={choice === value}
              onChange={() => editing.set({ [field.path]: choice })}
            />
            <span>
              <span class="legend">{choice}</span>
              <span class="field-help">
                <Described text={meaningOf(field.description, choice)} />
              </span>
            </span>
          </label>
        ))}
      </div>
      {error && <p class="field-error">{error}</p>}
    </fieldset>
  );
}
