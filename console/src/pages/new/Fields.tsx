import { useEffect, useRef } from "preact/hooks";
import { Button } from "../../components/Button";
import { Described } from "../../components/Described";
import type { FieldProps } from "../../components/Field";
import { SelectField } from "../../components/SelectField";
import { TextField } from "../../components/TextField";
import { words } from "../../format";
import { isChanged, shown, textOf, type Values } from "./draft";
import type { FieldSpec, Section } from "./schema";

/** The fields of a form and what was typed into them. */
export interface Editing {
  field: (path: string) => FieldSpec | undefined;
  values: Values;
  /** Undefined takes a field back to its default. */
  set: (changes: Record<string, string | undefined>) => void;
  errorAt: (path: string) => string | undefined;
}

interface SectionsProps {
  sections: readonly Section[];
  /** The section that is open at first. */
  first?: string;
  editing: Editing;
}

/** Fields in their sections, each of which opens on a click, or when something in it is wrong. */
export function Sections({ sections, first, editing }: SectionsProps) {
  return (
    <div class="job-sections">
      {sections.map((section) => (
        <Fold key={section.title} section={section} isFirst={section.title === first} editing={editing} />
      ))}
    </div>
  );
}

interface FoldProps {
  section: Section;
  isFirst: boolean;
  editing: Editing;
}

/** It is not closed again while somebody corrects what opened it. */
function Fold({ section: { title, fields }, isFirst, editing }: FoldProps) {
  const element = useRef<HTMLDetailsElement>(null);
  const changed = fields.filter((field) => isChanged(field, editing.values)).length;
  const wrong = fields.filter(({ path }) => editing.errorAt(path)).length;
  useEffect(() => {
    if (wrong && element.current) element.current.open = true;
  }, [wrong]);
  return (
    <details ref={element} open={isFirst}>
      <summary>
        <span class="legend">{title}</span>
        <span class={changed ? "job-changed" : "muted"}>{changed ? `${changed} changed` : "defaults"}</span>
        {wrong > 0 && <span class="field-error">{wrong} to correct</span>}
      </summary>
      <div class="job-grid">
        {fields.map((field) => (
          <SchemaField key={field.path} field={field} label={field.name} editing={editing} />
        ))}
      </div>
    </details>
  );
}

const NONE = ["", "none"] as const;
const FLAGS = [
  ["false", "no"],
  ["true", "yes"],
] as const;

interface Props {
  field: FieldSpec;
  label?: string;
  editing: Editing;
}

/** A field as the API's description has it: what it means, its default, its bounds, and the way back. */
export function SchemaField({ field, label, editing }: Props) {
  const { values, set, errorAt } = editing;
  const changed = isChanged(field, values);
  const initial = field.default === null ? "none" : shown(field.default);
  // Without a text there is none, so that such a field needs no way back.
  const hasDefault = !field.required && (field.kind !== "text" || field.default !== null);
  return (
    <div class="job-field" data-changed={String(changed)}>
      <Input
        field={field}
        label={label ?? words(field.name)}
        help={<Described text={field.description.split("\n\n")[0] ?? ""} />}
        error={errorAt(field.path)}
        value={textOf(field, values)}
        onChange={(next) => set({ [field.path]: next })}
      />
      {hasDefault && (
        <div class="job-default">
          <span class="muted small">{[`Default: ${initial}`, field.bounds].filter(Boolean).join(" · ")}</span>
          {changed && (
            <Button look="plain" onClick={() => set({ [field.path]: undefined })}>
              Back to the default
              <span class="visually-hidden"> of {field.name}</span>
            </Button>
          )}
        </div>
      )}
    </div>
  );
}

interface InputProps extends FieldProps {
  field: FieldSpec;
  value: string;
  onChange: (text: string) => void;
}

/** The field's control, which is a choice where there are few values. */
function Input({ field, ...given }: InputProps) {
  const choices = field.kind === "flag" ? FLAGS : field.choices.map((choice) => [choice, choice] as const);
  if (choices.length) {
    return <SelectField {...given} options={[...(field.optional ? [NONE] : []), ...choices]} />;
  }
  const inputMode = field.kind === "text" ? undefined : "decimal";
  return <TextField {...given} inputMode={inputMode} autocomplete="off" spellcheck={false} />;
}
