import { Described } from "../../components/Described";
import { Field } from "../../components/Field";
import { FORMATS } from "./formats";

interface Props {
  value: string;
  onChange: (format: string) => void;
  error: string | undefined;
}

/** The choice of a format, and what an archive of it must hold. */
export function FormatField({ value, onChange, error }: Props) {
  const chosen = FORMATS.find(({ name }) => name === value);
  const [pairs, ...benchmarks] = FORMATS;
  return (
    <div class="data-grid">
      <Field label="Format" error={error}>
        {(control) => (
          <select {...control} value={value} onChange={({ currentTarget }) => onChange(currentTarget.value)}>
            <optgroup label="To train on">
              <option>{pairs?.name}</option>
            </optgroup>
            <optgroup label="To measure models on">
              {benchmarks.map(({ name }) => (
                <option key={name}>{name}</option>
              ))}
            </optgroup>
          </select>
        )}
      </Field>
      <section class="stack close" aria-label="About the format">
        <p>{chosen?.meaning}</p>
        <div class="small">
          <p class="muted">
            {chosen && chosen.layouts.length > 1
              ? "The archive, or the folder on the server, holds one of these:"
              : "The archive, or the folder on the server, holds:"}
          </p>
          <ul class="data-layouts">
            {chosen?.layouts.map((layout) => (
              <li key={layout}>
                <Described text={layout} />
              </li>
            ))}
          </ul>
        </div>
      </section>
    </div>
  );
}
