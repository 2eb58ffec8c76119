"""Settles jobs that were asked to stop and whose worker is gone."""

from typing import Any

from sqlalchemy import Select, select

from sds_clip.app.store.clock import Clock
from sds_clip.app.store.database import Database
from sds_clip.app.store.records import Job, Level
from sds_clip.app.store.states import Action, JobStatus
from sds_clip.app.store.tables import jobs
from sds_clip.app.store.transitions import move


class Reaper:
    """Called every few seconds, by any number of processes. Raises StoreUnavailable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def settle_abandoned(self, *, limit: int = 100) -> tuple[Job, ...]:
        """Pause or cancel jobs whose worker was asked to do so and whose lease ended without an answer."""
        settled = []
        with self._database.writing() as connection:
            now = self._clock()
            for job in Job.all(connection, _abandoned(now).limit(limit)):
                settled.append(
                    move(
                        connection,
                        job,
                        Action.ABANDON,
                        now,
                        "The job's worker is gone.",
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
