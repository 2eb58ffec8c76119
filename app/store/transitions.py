"""The one place that changes a job's status: lock the row, consult the transition table, write an event."""

from typing import Any

from sqlalchemy import Connection, update

from sds_clip.app.errors import LeaseLost, UnknownRecord
from sds_clip.app.store.database import add_up
from sds_clip.app.store.job_events import append
from sds_clip.app.store.owned import Conditions
from sds_clip.app.store.part import known
from sds_clip.app.store.records import Event, EventType, Job, Json, Lease, Level
from sds_clip.app.store.shares import charge
from sds_clip.app.store.states import HELD, TERMINAL, Action, JobStatus, after
from sds_clip.app.store.tables import failures, jobs

RETRIED = "retried"


def locked_job(connection: Connection, job_id: str, seen: Conditions = ()) -> Job:
    """The job, locked against changes until this transaction ends. Raises UnknownRecord."""
    return known(connection, Job, jobs, jobs.c.id == job_id, *seen, lock=True)


def leased_job(connection: Connection, lease: Lease) -> Job:
    """The job of a lease, locked. Raises LeaseLost if the fence has moved, whatever the status."""
    try:
        job = locked_job(connection, lease.job_id)
    except UnknownRecord:
        raise lost(lease) from None
    if job.fence != lease.fence:
        raise lost(lease)
    return job


def held_job(connection: Connection, lease: Lease) -> Job:
    """The job of a lease, locked. Raises LeaseLost if the fence has moved or no worker may hold the job."""
    job = leased_job(connection, lease)
    if job.status not in HELD:
        raise lost(lease)
    return job


def lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"This worker no longer holds the job {lease.job_id} (fence {lease.fence}).")


def move(
    connection: Connection,
    job: Job,
    action: Action,
    now: float,
    message: str,
    *,
    level: Level = Level.INFO,
    data: Json | None = None,
    **values: Any,
) -> Job:
    """Change a locked job's status by the transition table, set `values` in other columns, write an event.

    An error is counted here, so that no way for a job to fail is left out.

    The WHERE clause repeats what the lock ensures, so that a mistake in locking changes nothing.

    Raises: TransitionRefused.
    """
    status = after(job.status, action)
    number = job.event_count + 1
    if job.status in HELD and (status not in HELD or action is Action.CLAIM):
        values["run_time_s"] = ran_s(job, now)
        charge(connection, job, values["run_time_s"] - job.run_time_s, now)
    moved = Job.one(
        connection,
        update(jobs)
        .where(jobs.c.id == job.id, jobs.c.fence == job.fence, jobs.c.status == job.status)
        .values(**_implied(status, now), **values, status=status, event_count=number)
        .returning(jobs),
    )
    data = {"from": job.status, "to": status, **(data or {})}
    append(connection, Event(job.id, number, now, EventType.STATUS, message, level, data))
    if (code := data["error"]["code"] if "error" in data else _code(moved)) is not None:
        outcome = RETRIED if status is JobStatus.QUEUED else status
        add_up(connection, failures.c.count, 1, kind=job.kind, outcome=outcome, code=code)
    return moved


def _code(job: Job) -> str | None:
    return job.error.code if job.status is JobStatus.FAILED and job.error is not None else None


def ran_s(job: Job, now: float) -> float:
    """How long a job has run over all its attempts. Time after a lapsed lease does not count."""
    if job.status not in HELD or job.claimed_at is None or job.lease_until is None:
        return job.run_time_s
    return job.run_time_s + max(0.0, min(now, job.lease_until) - job.claimed_at)


def _implied(status: JobStatus, now: float) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if status not in HELD:
        values |= {"lease_owner": None, "lease_until": None, "estimated_finish": None}
    if status is JobStatus.QUEUED:
        values |= {"queued_at": now, "pause_requested_at": None}
    if status in TERMINAL:
        values |= {"finished_at": now}
    if status is not JobStatus.PAUSED:
        values |= {"pause_reason": None}
    return values
