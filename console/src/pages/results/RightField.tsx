import { useId } from "preact/hooks";
import { count } from "../../format";
import type { Totals } from "./figures";
import type { Right } from "./filters";

interface Props {
  /** The name of the outcome that is looked at. */
  title: string;
  value: Right | undefined;
  totals: Totals | undefined;
  onChange: (right: Right | undefined) => void;
}

const TITLES = [
  [undefined, "All"],
  ["right", "Right"],
  ["wrong", "Wrong"],
] as const;

/** Whether the items are shown that are right, wrong, or both. */
export function RightField({ title, value, totals, onChange }: Props) {
  const name = useId();
  return (
    <fieldset class="results-flips">
      <legend class="legend">{title}</legend>
      <div class="row">
        {TITLES.map(([right, word]) => (
          <label key={word} class="results-flip">
            <input type="radio" name={name} checked={right === value} onChange={() => onChange(right)} />
            {word}
            {totals?.[right ?? ""] !== undefined && <span class="muted">{count(totals[right ?? ""])}</span>}
          </label>
        ))}
      </div>
    </fieldset>
  );
}
