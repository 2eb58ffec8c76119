import type { ApiError } from "../api/errors";
import { Button } from "./Button";

/** What went wrong, in the service's words, with what a report to its operator needs. */
export function ErrorNote({ error, onRetry }: { error: ApiError | undefined; onRetry?: () => void }) {
  if (!error) return null;
  return (
    <div class="error-note" role="alert">
      <p>{error.message}</p>
      <p class="small">
        <code>{error.code}</code>
        {error.requestId && (
          <>
            {" · request "}
            <code>{error.requestId}</code>
          </>
        )}
      </p>
      {onRetry && <Button onClick={onRetry}>Try again</Button>}
    </div>
  );
}
