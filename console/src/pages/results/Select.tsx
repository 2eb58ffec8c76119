import type { Control } from "../../components/Field";

interface Props {
  control: Control;
  value: string;
  onChange: (value: string) => void;
  /** Values with what is shown for them. */
  options: readonly (readonly [string, string])[];
}

export function Select({ control, value, onChange, options }: Props) {
  return (
    <select {...control} value={value} onChange={({ currentTarget }) => onChange(currentTarget.value)}>
      {options.map(([name, title]) => (
        <option key={name} value={name}>
          {title}
        </option>
      ))}
    </select>
  );
}
