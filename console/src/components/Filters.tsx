/** The controls by which a list is narrowed. */

import { useEffect, useState } from "preact/hooks";
import { SelectField } from "./SelectField";
import { TextField } from "./TextField";

const TYPING_MS = 300;

interface ChoiceProps<Name extends string> {
  label: string;
  value: Name | undefined;
  of: readonly Name[];
  onChange: (value: Name | "") => void;
}

export function Choice<Name extends string>({ label, value, of, onChange }: ChoiceProps<Name>) {
  return (
    <SelectField<Name | "">
      label={label}
      value={value ?? ""}
      options={[["", "All"], ...of.map((name) => [name, name] as const)]}
      onChange={onChange}
    />
  );
}

interface TypedProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
}

/** A text that is searched for once the reader pauses. */
export function Typed({ label, value, onChange }: TypedProps) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the list is drawn again while somebody types
  useEffect(() => {
    if (text === value) return;
    const timer = setTimeout(() => onChange(text), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text, value]);
  return (
    <TextField
      label={label}
      type="search"
      value={text}
      autocomplete="off"
      spellcheck={false}
      onChange={setText}
    />
  );
}
