import { Described } from "../../components/Described";
import { SelectField } from "../../components/SelectField";
import { FORMATS, PAIRS } from "./formats";

interface Props {
  value: string;
  onChange: (format: string) => void;
  error: string | undefined;
}

/** The choice of a format, and what an archive of it must hold. */
export function FormatField({ value, onChange, error }: Props) {
  const chosen = FORMATS.find(({ name }) => name === value);
  const benchmarks = FORMATS.filter(({ name }) => name !== PAIRS);
  return (
    <div class="data-grid">
      <SelectField
        label="Format"
        error={error}
        value={value}
        options={[
          { title: "To train on", options: [[PAIRS, PAIRS]] },
          { title: "To measure models on", options: benchmarks.map(({ name }) => [name, name]) },
        ]}
        onChange={onChange}
      />
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
