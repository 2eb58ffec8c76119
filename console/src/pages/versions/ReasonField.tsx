import type { ApiError } from "../../api/errors";
import { Field } from "../../components/Field";

const WAIT_S = 60;

export const waitOf = (isWaiting: boolean) => (isWaiting ? WAIT_S : 0);

interface ReasonProps {
  value: string;
  onChange: (reason: string) => void;
  error: ApiError | undefined;
}

export function ReasonField({ value, onChange, error }: ReasonProps) {
  return (
    <Field
      label="Reason"
      help="The audit trail keeps it."
      error={error?.param === "reason" ? error.message : undefined}
    >
      {(control) => (
        <textarea
          {...control}
          rows={2}
          maxLength={1000}
          required
          value={value}
          onInput={({ currentTarget }) => onChange(currentTarget.value)}
        />
      )}
    </Field>
  );
}

export function WaitField({ value, onChange }: { value: boolean; onChange: (isWaiting: boolean) => void }) {
  return (
    <label class="version-check">
      <input
        type="checkbox"
        checked={value}
        onChange={({ currentTarget }) => onChange(currentTarget.checked)}
      />
      <span>Wait until every process serves it, at most {WAIT_S} s</span>
    </label>
  );
}
