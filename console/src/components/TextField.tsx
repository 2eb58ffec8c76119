import type { AllHTMLAttributes, InputHTMLAttributes } from "preact";
import { Field, type FieldProps } from "./Field";

type Given = "inputMode" | "autocomplete" | "spellcheck" | "required" | "min" | "max" | "step";

interface Props extends FieldProps, Pick<AllHTMLAttributes, Given> {
  type?: "text" | "search" | "number" | "password";
  value: string;
  onChange: (text: string) => void;
}

export function TextField({ label, help, error, onChange, ...rest }: Props) {
  const given = rest as InputHTMLAttributes; // Preact types the input of each type apart
  return (
    <Field label={label} help={help} error={error}>
      {(control) => (
        <input {...control} {...given} onInput={({ currentTarget }) => onChange(currentTarget.value)} />
      )}
    </Field>
  );
}
