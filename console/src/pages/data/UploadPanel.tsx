import { Button } from "../../components/Button";
import { ErrorNote } from "../../components/ErrorNote";
import { bytes, duration } from "../../format";
import { secondsLeft, speedOf } from "./pace";
import { cancel, useUploading } from "./uploading";

/** The upload that is under way: how far it is, how fast, and how long it still takes. Or why it failed. */
export function UploadPanel() {
  const uploading = useUploading();
  if (!uploading) return null;
  const { wanted, total, readings, error } = uploading;
  const sent = readings.at(-1)?.sent ?? 0;
  const share = total ? Math.min(1, sent / total) : 0;
  const title = wanted.name || wanted.files[0]?.name;
  if (error) {
    return (
      <section class="stack close" aria-label="Upload">
        <p>
          {title} could not be uploaded. <a href="#/data?add=1">Back to the form</a>
        </p>
        <ErrorNote error={error} />
      </section>
    );
  }
  return (
    <section class="card stack close" aria-label="Upload">
      <div class="row apart">
        <h2>Uploading {title}</h2>
        <Button onClick={cancel}>Cancel the upload</Button>
      </div>
      <progress class="data-progress" max={1} value={share} aria-label="Share that was sent" />
      <p class="row data-pace">
        <span>
          {bytes(sent)} of {bytes(total)}
        </span>
        <span class="muted">{pace(share, speedOf(readings), secondsLeft(readings, total))}</span>
      </p>
    </section>
  );
}

function pace(share: number, speed: number | undefined, left: number | undefined): string {
  if (share === 1) return "Everything is sent. The service is storing it.";
  if (speed === undefined) return "";
  return `${bytes(speed)} a second${left === undefined ? "" : ` · ${duration(left)} left`}`;
}
