import { useId } from "preact/hooks";
import { count } from "../../format";

interface Props<Name extends string> {
  legend: string;
  value: Name | undefined;
  /** Each choice beside that of all items, with what is shown for it. */
  choices: readonly (readonly [Name, string])[];
  /** How many items each choice shows, if that is known. */
  totals: Partial<Record<Name | "", number>> | undefined;
  onChange: (value: Name | undefined) => void;
}

/** Which items are shown. */
export function ShownField<Name extends string>({ legend, value, choices, totals, onChange }: Props<Name>) {
  const id = useId();
  return (
    <fieldset class="results-flips">
      <legend class="legend">{legend}</legend>
      <div class="row">
        {([[undefined, "All"], ...choices] as const).map(([name, title]) => {
          const total = totals?.[name ?? ""];
          return (
            <label key={title} class="results-flip">
              <input type="radio" name={id} checked={name === value} onChange={() => onChange(name)} />
              {title}
              {total !== undefined && <span class="muted">{count(total)}</span>}
            </label>
          );
        })}
      </div>
    </fieldset>
  );
}
