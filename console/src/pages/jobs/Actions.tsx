import { useState } from "preact/hooks";
import { api, ask } from "../../api/client";
import { useAction } from "../../api/use";
import { announce } from "../../components/Announcer";
import { Button } from "../../components/Button";
import { Confirm } from "../../components/Confirm";
import { ErrorNote } from "../../components/ErrorNote";
import { address } from "../../router";
import { offered, refusal, type Verb } from "./actions";
import { type Job, titleOf } from "./job";

const WORDS: Record<Verb, string> = {
  cancel: "Cancel",
  pause: "Pause",
  resume: "Resume",
  retry: "Retry",
  delete: "Delete files",
};
const DONE: Record<Verb, string> = {
  cancel: "The job is being cancelled.",
  pause: "The job pauses at its next checkpoint.",
  resume: "The job is queued again.",
  retry: "The job is tried again.",
  delete: "The job’s files are deleted.",
};

export function Actions({ job, onChange }: { job: Job; onChange: () => void }) {
  const [asked, setAsked] = useState<Verb>();
  const doing = useAction(async (verb: Verb) => {
    await send(verb, job.id);
    announce(DONE[verb]);
    setAsked(undefined);
    onChange();
  });
  const press = (verb: Verb) => {
    const why = refusal(verb, job);
    if (why) announce(why);
    else if (verb === "cancel" || verb === "delete") setAsked(verb);
    else void doing.run(verb);
  };
  const [first, second] = offered(job.status);
  const button = (verb: Verb) => {
    const why = refusal(verb, job);
    return (
      <Button
        busy={doing.running && asked === undefined}
        aria-disabled={why !== undefined}
        title={why}
        onClick={() => press(verb)}
      >
        {WORDS[verb]}
      </Button>
    );
  };
  // The buttons stay where they are when the status changes, and one of them keeps the focus.
  return (
    <div class="stack close">
      <div class="row">
        {button(first)}
        {button(second)}
        <a class="button" href={address(["new"], { from: job.id })}>
          Duplicate with changes
        </a>
      </div>
      {asked === undefined && <ErrorNote error={doing.error} />}
      <Confirm
        title={asked === "delete" ? "Delete the job’s files?" : "Cancel the job?"}
        open={asked !== undefined}
        onClose={() => setAsked(undefined)}
        verb={asked === "delete" ? "Delete files" : "Cancel the job"}
        action={{ ...doing, run: async () => asked && doing.run(asked) }}
      >
        <p>
          {asked === "delete"
            ? "Its checkpoints, its log and its report are removed for good. Its record, its curves and the version that it made stay."
            : "Its worker stops at once. Its checkpoints stay, so that a retry goes on from the newest one."}
        </p>
        <p class="muted">{titleOf(job)}</p>
      </Confirm>
    </div>
  );
}

function send(verb: Verb, id: string): Promise<Job> {
  const params = { params: { path: { job_id: id } } };
  if (verb === "delete") return ask(api.DELETE("/jobs/{job_id}", params));
  return ask(api.POST(`/jobs/{job_id}/${verb}`, params));
}
