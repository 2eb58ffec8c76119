import { type Named, versionNamed } from "../../api/models";
import { Field } from "../../components/Field";
import { shortId } from "../../format";

interface Props {
  label: string;
  help?: string;
  /** The words for no choice. */
  none: string;
  models: Named | undefined;
  value: string;
  onChange: (name: string) => void;
}

/** One of the models that requests can name: what is served, each with its version, then every version. */
export function VersionField({ label, help, none, models, value, onChange }: Props) {
  const names = new Set([
    ...(models?.models.map(({ name }) => name) ?? []),
    ...(models?.aliases?.map(({ name }) => name) ?? []),
  ]);
  const titleOf = (name: string) => {
    const version = models && versionNamed(name, models);
    return version ? `${name} · ${shortId(version)}` : name;
  };
  return (
    <Field label={label} help={help}>
      {(control) => (
        <select {...control} value={value} onChange={({ currentTarget }) => onChange(currentTarget.value)}>
          <option value="">{none}</option>
          <optgroup label="In service">
            {[...names].map((name) => (
              <option key={name} value={name}>
                {titleOf(name)}
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
