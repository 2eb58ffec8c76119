"""Takes a job for a worker, or ends it. Statements in a transaction of `sds_clip.app.store.leases`."""

from dataclasses import asdict

from sqlalchemy import Connection

from sds_clip.app.store.records import JOB_FORMAT, Job, JobError, Level
from sds_clip.app.store.states import Action, JobKind, JobStatus
from sds_clip.app.store.transitions import move, ran_s
from sds_clip.app.store.verdicts import give_up

INTERRUPTED = "interrupted_too_often"
OUT_OF_TIME = "run_time_exceeded"
MAX_BACK_OFF_S = 300.0  # a job that takes its machine down each time may do so only every five minutes


def back_off_s(base_s: float, times: int) -> float:
    """How long a job waits after `times` setbacks: doubled for each after the first, up to five minutes."""
    return min(MAX_BACK_OFF_S, base_s * 2.0 ** (times - 1)) if times else 0.0


def take(
    connection: Connection, job: Job, owner: str, now: float, until: float, interruptions: int, due: float
) -> Job:
    attempt = job.attempt + (job.status is JobStatus.QUEUED)
    lapsed = "" if job.status is JobStatus.QUEUED else " after its lease had lapsed"
    return move(
        connection,
        job,
        Action.CLAIM,
        now,
        f"A worker took the job{lapsed} (attempt {attempt} of {job.max_attempts}).",
        data={"owner": owner, "fence": job.fence + 1},
        fence=job.fence + 1,
        format=JOB_FORMAT,  # its next checkpoint may be in this format
        attempt=attempt,
        interruptions=interruptions,
        not_before=due,
        claimed_at=now,
        turn_over_at=None,
        lease_owner=owner,
        lease_until=until,
        started_at=job.started_at if job.started_at is not None else now,
    )


def used_up(job: Job, interruptions: int, now: float) -> JobError | None:
    """Why a job may not continue, whatever its worker did. None if it may."""
    again = f"POST /jobs/{job.id}/retry continues from its newest checkpoint."
    if job.kind is JobKind.CHECK:
        again = "Add the data set again to have it checked."
    if ran_s(job, now) >= job.max_run_time_s:
        message = (
            f"The job has run for its limit of {job.max_run_time_s:g} s. {again} Its time then restarts at 0."
        )
        return JobError(OUT_OF_TIME, message, retryable=True)
    if interruptions > job.max_interruptions:
        message = f"The job was interrupted {interruptions} times; see its events. {again}"
        return JobError(INTERRUPTED, message, retryable=True)
    return None


def exhaust(connection: Connection, job: Job, error: JobError, now: float, interruptions: int) -> Job:
    failed = move(
        connection,
        job,
        Action.EXHAUST,
        now,
        error.message,
        level=Level.ERROR,
        data={"error": asdict(error)},
        error=error,
        interruptions=interruptions,
    )
    give_up(connection, failed, now)
    return failed
