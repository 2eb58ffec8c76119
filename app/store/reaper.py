"""What falls between callers and workers: lost wake-ups, and jobs that were asked to stop by nobody's worker."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, select

from app.store.database import Clock, Database
from app.store.records import Job, Level, StaleJob
from app.store.states import Action, JobStatus
from app.store.tables import jobs
from app.store.transitions import move


class Reaper:
    """Looked through every few seconds, by any number of processes. Raises StoreUnavailable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def stale(self, queued_for_s: float, *, limit: int = 100) -> tuple[StaleJob, ...]:
        """Jobs for which the reaper should publish a wake-up again, those that wait longest first: due in the
        queue for more than `queued_for_s`, or running under a lease that has ended.
        """
        now = self._clock()
        with self._database.reading() as connection:
            since = _due_since(jobs.c.queued_at)
            queued = _waiting(connection, JobStatus.QUEUED, since, now - queued_for_s, limit)
            ended = _waiting(connection, JobStatus.RUNNING, _due_since(jobs.c.lease_until), now, limit)
        return tuple(sorted(queued + ended, key=lambda job: job.since)[:limit])

    def settle_abandoned(self, *, limit: int = 100) -> tuple[Job, ...]:
        """Pause or cancel jobs whose worker was asked to, and whose lease has ended without an answer."""
        settled = []
        with self._database.writing() as connection:
            now = self._clock()
            rows = connection.execute(_abandoned(now).limit(limit)).mappings().all()
            for row in rows:
                job = Job.of(row)
                settled.append(
                    move(
                        connection,
                        job,
                        Action.ABANDON,
                        now,
                        "Its worker is gone.",
                        level=Level.WARNING,
                        interruptions=job.interruptions + 1,
                    )
                )
        return tuple(settled)


def _abandoned(now: float) -> Select[tuple[Any, ...]]:
    asked = [JobStatus.PAUSING, JobStatus.CANCELLING]
    return (
        select(jobs)
        .where(jobs.c.status.in_(asked), jobs.c.lease_until <= now)
        .with_for_update(skip_locked=True)
    )


def _due_since(free: ColumnElement[float]) -> ColumnElement[float]:
    """A job that backs off is due when it may be claimed again."""
    return case((jobs.c.not_before > free, jobs.c.not_before), else_=free)


def _waiting(
    connection: Connection,
    status: JobStatus,
    since: ColumnElement[float],
    before: float,
    limit: int,
) -> list[StaleJob]:
    rows = connection.execute(
        select(jobs.c.id, jobs.c.kind, since.label("since"))
        .where(jobs.c.status == status, since <= before)
        .order_by(since)
        .limit(limit)
    )
    return [StaleJob(row.id, row.kind, row.since) for row in rows]
