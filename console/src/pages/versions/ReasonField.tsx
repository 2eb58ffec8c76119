import type { ApiError } from "../../api/errors";
import { Field } from "../../components/Field";
import { count } from "../../format";
import { isTooLong, lengthOf, REASON_CHARS } from "./reason";

const WAIT_S = 60;

export const waitOf = (isWaiting: boolean) => (isWaiting ? WAIT_S : 0);

interface ReasonProps {
  value: string;
  onChange: (reason: string) => void;
  error: ApiError | undefined;
}

export function ReasonField({ value, onChange, error }: ReasonProps) {
  const most = count(REASON_CHARS);
  const wrong = isTooLong(value) ? `This is too long. Shorten it to ${most} characters.` : undefined;
  return (
    <Field
      label="Reason"
      help={`Required. The audit trail keeps it. ${count(lengthOf(value))} of at most ${most} characters.`}
      error={wrong ?? (error?.param === "reason" ? error.message : undefined)}
    >
      {(control) => (
        <textarea
          {...control}
          rows={2}
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
