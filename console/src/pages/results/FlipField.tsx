import { useId } from "preact/hooks";
import { count } from "../../format";
import { FLIPS, type Flip } from "./filters";

const TITLES: Record<Flip | "", string> = {
  "": "All",
  right_to_wrong: "Right to wrong",
  wrong_to_right: "Wrong to right",
  changed: "Changed",
  same: "Unchanged",
};

interface Props {
  value: Flip | undefined;
  /** How many items each choice shows, if that is known. */
  totals: Record<Flip | "", number> | undefined;
  onChange: (flip: Flip | undefined) => void;
}

/** Which changes are shown. */
export function FlipField({ value, totals, onChange }: Props) {
  const name = useId();
  return (
    <fieldset class="results-flips">
      <legend class="legend">Change</legend>
      <div class="row">
        {([undefined, ...FLIPS] as const).map((flip) => (
          <label key={flip ?? ""} class="results-flip">
            <input type="radio" name={name} checked={flip === value} onChange={() => onChange(flip)} />
            {TITLES[flip ?? ""]}
            {totals && <span class="muted">{count(totals[flip ?? ""])}</span>}
          </label>
        ))}
      </div>
    </fieldset>
  );
}
