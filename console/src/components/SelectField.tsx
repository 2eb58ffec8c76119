import { Field, type FieldProps } from "./Field";

interface Props<Value extends string> extends FieldProps {
  value: Value;
  /** Values with what is shown for them. */
  options: readonly (readonly [Value, string])[];
  onChange: (value: Value) => void;
}

export function SelectField<Value extends string>({ value, options, onChange, ...field }: Props<Value>) {
  return (
    <Field {...field}>
      {(control) => (
        <select
          {...control}
          value={value}
          onChange={({ currentTarget }) => onChange(currentTarget.value as Value)}
        >
          {options.map(([name, title]) => (
            <option key={name} value={name}>
              {title}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}
