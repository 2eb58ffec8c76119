import { Field, type FieldProps } from "./Field";

/** A value with what is shown for it. */
export type Option<Value extends string = string> = readonly [Value, string];

export interface Group<Value extends string = string> {
  title: string;
  options: readonly Option<Value>[];
}

interface Props<Value extends string> extends FieldProps {
  value: Value;
  options: readonly (Option<Value> | Group<Value>)[];
  disabled?: boolean;
  onChange: (value: Value) => void;
}

export function SelectField<Value extends string>({ label, help, error, onChange, ...rest }: Props<Value>) {
  const { options, ...given } = rest;
  return (
    <Field label={label} help={help} error={error}>
      {(control) => (
        <select
          {...control}
          {...given}
          onChange={({ currentTarget }) => onChange(currentTarget.value as Value)}
        >
          {options.map((each) =>
            "title" in each ? (
              <optgroup key={each.title} label={each.title}>
                {each.options.map(option)}
              </optgroup>
            ) : (
              option(each)
            ),
          )}
        </select>
      )}
    </Field>
  );
}

function option([value, title]: Option) {
  return (
    <option key={value} value={value}>
      {title}
    </option>
  );
}
