"""What is read again and again to notice that jobs have changed. Checks of data sets are left out."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, select, union_all

from sds_clip.app.store.paging import MAX_ROWS
from sds_clip.app.store.part import Part
from sds_clip.app.store.records import Job
from sds_clip.app.store.states import OPEN, JobStatus
from sds_clip.app.store.tables import NO_CHECK, jobs

_OPEN = and_(jobs.c.status.in_(sorted(OPEN)), NO_CHECK)
_SHOWN = tuple(
    jobs.c[name]
    for name in ("id", "kind", "devices", "status", "stage", "step", "steps", "attempt", "estimated_finish")
)


class Watch(Part):
    """With an owner, the jobs of all others are unknown."""

    def states(self, ended_since: float) -> dict[str, Row[Any]]:
        """What changes while a job goes on, by id, of the open jobs and of those that ended lately.

        Two statements in one, because each has an index of its own.
        """
        query = union_all(
            select(*_SHOWN).where(_OPEN, *self._seen),
            select(*_SHOWN).where(_ended(ended_since), *self._seen),
        )
        with self._database.reading() as connection:
            return {row.id: row for row in connection.execute(query)}

    def among(self, ids: Collection[str]) -> tuple[Job, ...]:
        """The jobs with these ids that exist."""
        return self._jobs(jobs.c.id.in_(sorted(ids)), MAX_ROWS) if ids else ()

    def changed_since(self, at: float, *, limit: int) -> tuple[Job, ...]:
        """The jobs whose status may have changed since a time: at most `limit` that are open, and as many that ended.

        Open ones that have been queued since before are left out.
        """
        waits = and_(jobs.c.status == JobStatus.QUEUED, jobs.c.queued_at < at)
        return self._jobs(and_(_OPEN, ~waits), limit) + self._jobs(_ended(at), limit)

    def _jobs(self, condition: ColumnElement[bool], limit: int) -> tuple[Job, ...]:
        query = select(jobs).where(condition, *self._seen).limit(limit)
        with self._database.reading() as connection:
            return Job.all(connection, query)


def _ended(since: float) -> ColumnElement[bool]:
    """For the index of the jobs whose events are not pruned yet. They are kept for days."""
    return and_(jobs.c.finished_at >= since, jobs.c.pruned_at.is_(None), NO_CHECK)
