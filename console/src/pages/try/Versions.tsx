import { Field } from "../../components/Field";
import { shortId } from "../../format";

/** What GET /models lists. */
interface Named {
  models: { name: string }[];
  aliases?: { name: string }[];
  versions?: { id: string; aliases: string[] }[];
}

interface Props {
  label: string;
  help?: string;
  /** The words for no choice. */
  none: string;
  models: Named | undefined;
  value: string;
  onChange: (name: string) => void;
}

/** One of the models that requests can name: what is served, then every version. */
export function VersionField({ label, help, none, models, value, onChange }: Props) {
  const names = new Set([
    ...(models?.models.map(({ name }) => name) ?? []),
    ...(models?.aliases?.map(({ name }) => name) ?? []),
  ]);
  return (
    <Field label={label} help={help}>
      {(control) => (
        <select {...control} value={value} onChange={({ currentTarget }) => onChange(currentTarget.value)}>
          <option value="">{none}</option>
          <optgroup label="In service">
            {[...names].map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </optgroup>
          {Boolean(models?.versions?.length) && (
            <optgroup label="Versions">
              {models?.versions?.map(({ id, aliases }) => (
                <option key={id} value={id}>
                  {[shortId(id), ...aliases].join(" · ")}
                </option>
              ))}
            </optgroup>
          )}
        </select>
      )}
    </Field>
  );
}
