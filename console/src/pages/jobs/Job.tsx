import { useState } from "preact/hooks";
import { serviceUrl } from "../../api/client";
import { NO_DATASETS } from "../../api/datasets";
import { useLoaded } from "../../api/use";
import { StatusBadge } from "../../components/Badge";
import { Bar } from "../../components/Bar";
import type { Range } from "../../components/Chart";
import { ErrorNote } from "../../components/ErrorNote";
import { Reconnecting } from "../../components/Reconnecting";
import { Skeleton } from "../../components/Skeleton";
import { duration } from "../../format";
import { useNow } from "../../use-now";
import { Actions } from "./Actions";
import { Configuration } from "./Configuration";
import { CurvesPanel } from "./CurvesPanel";
import { datasetsOf } from "./data";
import { Events } from "./Events";
import { Checkpoints, Notes, Resources, Result } from "./Facts";
import { type Job, titleOf } from "./job";
import { progressLine, timeLeft } from "./progress";
import { useJob } from "./useJob";
import { sentence } from "./words";

export function JobPage({ id, other }: { id: string; other: string | undefined }) {
  const [range, setRange] = useState<Range>();
  const { job, events, curves, zoomed, error, lost, reload } = useJob(id, range);
  const datasets = useLoaded(async () => job && (await datasetsOf(job)), [job?.id]).data ?? NO_DATASETS;
  if (!job) {
    return (
      <div class="page">
        <Back />
        <h1>{id}</h1>
        <ErrorNote error={error} {...(error?.status !== 404 && { onRetry: reload })} />
        {error?.status === 404 && (
          <p>
            Its address may be mistyped. <a href="#/jobs">Choose one from the list of jobs.</a>
          </p>
        )}
        {!error && <Skeleton lines={12} />}
      </div>
    );
  }
  return (
    <div class="page">
      <div class="row apart">
        <Back />
        <Reconnecting lost={lost} />
      </div>
      <header class="stack">
        <div class="row">
          <h1>{titleOf(job)}</h1>
          <StatusBadge status={job.status} />
          {job.name && <code class="muted">{job.id}</code>}
        </div>
        <p class="job-sentence">{sentence(job, datasets)}</p>
        <Progress job={job} />
        {(job.kind !== "check" || job.status === "paused") && <Actions job={job} onChange={reload} />}
      </header>
      {!lost && <ErrorNote error={error} onRetry={reload} />}
      <Trouble job={job} />
      <CurvesPanel job={job} curves={curves} zoomed={zoomed} other={other} range={range} onRange={setRange} />
      <div class="columns">
        <div class="stack job-column">
          <Result job={job} datasets={datasets} />
          <Events events={events} />
          <Checkpoints job={job} />
        </div>
        <div class="stack job-column">
          <Resources job={job} curves={curves} />
          <Files job={job} />
          <Notes job={job} />
        </div>
      </div>
      <Configuration job={job} />
    </div>
  );
}

function Back() {
  return (
    <p class="small">
      <a href="#/jobs">All jobs</a>
    </p>
  );
}

function Progress({ job }: { job: Job }) {
  const now = useNow();
  const left = timeLeft(job, now);
  return (
    <div class="job-progress">
      <Bar share={job.progress.share ?? 0} />
      <p class="row apart small">
        <span>{progressLine(job)}</span>
        <span class="muted">{left !== undefined && `${duration(left)} left in this stage`}</span>
      </p>
    </div>
  );
}

/** Why the job stands still, and what to do. */
function Trouble({ job }: { job: Job }) {
  const failure = job.error ?? job.pause_reason;
  if (!failure && !job.no_worker) return null;
  return (
    <div class="error-note" role="alert">
      {failure ? (
        <>
          <p>{failure.message}</p>
          <p class="small">
            <code>{failure.code}</code>
            {failure.param && (
              <>
                {" · in "}
                <code>{failure.param}</code>
              </>
            )}
          </p>
          <p>{advice(job)}</p>
        </>
      ) : (
        <p>
          The job waits, because no worker for this kind of job is running. Start one:{" "}
          <code>sds-clip worker --queue {job.kind === "check" ? "finetune" : job.kind}</code>, or{" "}
          <code>sds-clip up</code>, which starts everything.
        </p>
      )}
    </div>
  );
}

function advice(job: Job): string {
  if (!job.error) return "Free some space, then resume the job. It goes on from its checkpoint.";
  return job.error.retryable
    ? "Another attempt may succeed: retry the job. It goes on from its newest checkpoint."
    : "Another attempt would fail in the same way: duplicate the job with changes.";
}

function Files({ job }: { job: Job }) {
  const path = `${serviceUrl()}/jobs/${encodeURIComponent(job.id)}`;
  return (
    <section class="stack close" aria-label="Files">
      <h2>Files</h2>
      {job.kind === "finetune" && <File href={`${path}/log`}>Log, as JSON lines</File>}
      {job.report && <File href={`${path}/report`}>Report, with samples of the data</File>}
      <File href={path}>The whole record, as JSON</File>
    </section>
  );
}

function File({ href, children }: { href: string; children: string }) {
  return (
    <p>
      <a href={href} target="_blank" rel="noreferrer">
        {children}
      </a>
    </p>
  );
}
