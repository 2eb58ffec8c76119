import { type Named, versionNamed } from "../../api/models";
import { type Group, SelectField } from "../../components/SelectField";
import { shortId } from "../../format";

type Versions = NonNullable<Named["versions"]>;

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
export function VersionField({ none, models, ...field }: Props) {
  const names = new Set([
    ...(models?.models.map(({ name }) => name) ?? []),
    ...(models?.aliases?.map(({ name }) => name) ?? []),
  ]);
  const titleOf = (name: string) => {
    const version = models && versionNamed(name, models);
    return version ? `${name} · ${shortId(version)}` : name;
  };
  const versions = models?.versions ?? [];
  return (
    <SelectField
      {...field}
      options={[
        ["", none],
        { title: "In service", options: [...names].map((name) => [name, titleOf(name)]) },
        ...(versions.length ? [versionsGroup(versions)] : []),
      ]}
    />
  );
}

/** Every version by the beginning of its id, with its aliases. */
export function versionsGroup(versions: Versions): Group {
  const titleOf = ({ id, aliases }: Versions[number]) => [shortId(id), ...aliases].join(" · ");
  return { title: "Versions", options: versions.map((each) => [each.id, titleOf(each)]) };
}
