"""What a job tells while it runs: events in one numbered stream, metrics as curves; both bounded."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from app.store.database import Clock, Database
from app.store.errors import UnknownRecord
from app.store.paging import MAX_EVENTS, MAX_NUMBER, bounded
from app.store.records import Event, EventType, Json, Level, MetricPoint
from app.store.tables import events, jobs, metrics
from app.store.transitions import append
from app.store.values import finite


class Journal:
    """Events and metrics of jobs. A job keeps its newest `max_events` events and its transitions, and of its
    metrics a curve of `max_points` steps, of which every second is dropped when there are more. Both are
    seen to now and then, so that there may be a sixteenth of `max_events` more.
    """

    def __init__(
        self, database: Database, clock: Clock, *, max_events: int = 10_000, max_points: int = 10_000
    ) -> None:
        self._database = database
        self._clock = clock
        self._max_events = max_events
        self._trim_every = max(1, max_events // 16)
        self._max_points = max_points

    def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> tuple[Event, ...]:
        """A job's events with numbers greater than `after`, in order; none where there are no newer ones.

        At most MAX_EVENTS at once. A number is never seen before a smaller one. Numbers that were pruned are skipped.

        Raises: UnknownRecord.
        """
        query = events_query(job_id, bounded(after, 0, MAX_NUMBER)).limit(bounded(limit, 1, MAX_EVENTS))
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
            if not rows:
                _check_job(connection, job_id)
        return tuple(Event.of(row) for row in rows)

    def transitions(self, job_id: str, *, limit: int = 100) -> tuple[Event, ...]:
        """The job's newest changes of status, in order. Raises UnknownRecord."""
        query = (
            select(events)
            .where(events.c.job_id == job_id, events.c.type == EventType.STATUS)
            .order_by(events.c.number.desc())
            .limit(bounded(limit, 1, MAX_EVENTS))
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
            if not rows:
                _check_job(connection, job_id)
        return tuple(Event.of(row) for row in reversed(rows))

    def metrics(self, job_id: str, *, after: int = -1, limit: int = 1000) -> tuple[MetricPoint, ...]:
        """A job's metrics at steps greater than `after`, in order. Raises UnknownRecord."""
        query = (
            select(metrics)
            .where(metrics.c.job_id == job_id, metrics.c.step > bounded(after, -1, MAX_NUMBER))
            .order_by(metrics.c.step)
            .limit(bounded(limit, 1, MAX_EVENTS))
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
            if not rows:
                _check_job(connection, job_id)
        return tuple(MetricPoint.of(row) for row in rows)

    def latest_metrics(self, job_id: str) -> MetricPoint | None:
        """The metrics at the highest step, if any."""
        query = select(metrics).where(metrics.c.job_id == job_id).order_by(metrics.c.step.desc()).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else MetricPoint.of(row)

    def prune(self, older_than_s: float, *, limit: int = 50) -> int:
        """Drop the events of up to `limit` jobs that ended longer ago, all but their transitions.

        One short transaction a job. Returns how many jobs were pruned; call again until it is 0.
        """
        cutoff = self._clock() - older_than_s
        query = (
            select(jobs.c.id)
            .where(jobs.c.pruned_at.is_(None), jobs.c.finished_at <= cutoff)
            .order_by(jobs.c.finished_at)
            .limit(bounded(limit, 1, MAX_EVENTS))
        )
        with self._database.reading() as connection:
            ids = connection.execute(query).scalars().all()
        for job_id in ids:
            with self._database.writing() as connection:
                connection.execute(_droppable(job_id))
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(pruned_at=self._clock()))
        return len(ids)

    def add(
        self,
        connection: Connection,
        job_id: str,
        number: int,
        now: float,
        *,
        level: Level,
        type: str,
        message: str,
        data: Json | None,
    ) -> None:
        """Write an event in the caller's transaction, and drop what is over the bounds now and then."""
        append(connection, job_id, number, now, level=level, type=type, message=message, data=data)
        if number % self._trim_every == 0:
            connection.execute(_droppable(job_id).where(events.c.number <= number - self._max_events))
            self._thin_out(connection, job_id)

    def add_metrics(
        self,
        connection: Connection,
        job_id: str,
        number: int,
        now: float,
        step: int,
        values: Mapping[str, float],
    ) -> None:
        """Write metrics as an event and on the curve, in the caller's transaction."""
        content = finite(dict(values))
        point = (metrics.c.job_id == job_id) & (metrics.c.step == step)
        if connection.execute(update(metrics).where(point).values(values=content, at=now)).rowcount == 0:
            connection.execute(insert(metrics).values(job_id=job_id, step=step, values=content, at=now))
        self.add(
            connection,
            job_id,
            number,
            now,
            level=Level.INFO,
            type=EventType.METRICS,
            message=f"Step {step}.",
            data={"step": step, "values": content},
        )

    def _thin_out(self, connection: Connection, job_id: str) -> None:
        """Drop every second point but the newest, if there are too many."""
        of_job = metrics.c.job_id == job_id
        count, newest = connection.execute(select(func.count(), func.max(metrics.c.step)).where(of_job)).one()
        if count <= self._max_points:
            return
        place = func.row_number().over(order_by=metrics.c.step).label("place")
        ranked = select(metrics.c.step, place).where(of_job).subquery()
        dropped = select(ranked.c.step).where(ranked.c.place % 2 == 0, ranked.c.step < newest)
        connection.execute(delete(metrics).where(of_job, metrics.c.step.in_(dropped)))


def events_query(job_id: str, after: int) -> Any:
    """The statement of `Journal.events`, whose plan a test looks at."""
    return select(events).where(events.c.job_id == job_id, events.c.number > after).order_by(events.c.number)


def _droppable(job_id: str) -> Any:
    return delete(events).where(events.c.job_id == job_id, events.c.type != EventType.STATUS)


def _check_job(connection: Connection, job_id: str) -> None:
    if connection.execute(select(jobs.c.id).where(jobs.c.id == job_id)).one_or_none() is None:
        raise UnknownRecord("job")
