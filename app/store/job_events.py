"""What a running job reports: events in one numbered and bounded stream, and metrics as whole curves."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    String,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)

from sds_clip.app.errors import UnknownRecord
from sds_clip.app.store.paging import MAX_NUMBER, MAX_ROWS, bounded
from sds_clip.app.store.part import Part
from sds_clip.app.store.records import Event, EventType, MetricPoint
from sds_clip.app.store.states import JobKind
from sds_clip.app.store.tables import events, jobs, metrics
from sds_clip.app.store.values import bounded_data, bounded_message, finite

MAX_EVENTS = 10_000
MAX_TEXTS = 2000
"""Steps whose metrics are read at once as text."""
_KEPT_APART = (EventType.STATUS, EventType.METRICS)


class MetricTexts(NamedTuple):
    """Metrics of several steps, each step once but in any order."""

    last_step: int
    steps: str
    """The steps, separated by commas."""
    values: str
    """The JSON of each step's values by name, separated by commas."""


class JobEvents(Part):
    """Events and metrics of jobs.

    A job keeps every point of its curves, whose number is limited at submission. Of its events it keeps all
    transitions, and the newest MAX_EVENTS of metrics and of other events each, so that metrics displace no
    messages. Events are trimmed only now and then, so there may be a sixteenth more.

    With an owner, the jobs of all others are unknown.
    """

    def events(self, job_id: str, *, after: int = 0, limit: int = 100) -> tuple[Event, ...]:
        """A job's events with numbers greater than `after`, in order. Empty if there are no newer ones.

        It returns at most MAX_ROWS. A number never becomes visible before a smaller one. Pruned numbers are
        skipped.

        Raises: UnknownRecord.
        """
        query = events_query(job_id, bounded(after, 0, MAX_NUMBER)).limit(bounded(limit, 1, MAX_ROWS))
        return tuple(map(Event.of, self._rows(query, job_id)))

    def transitions(self, job_id: str, *, limit: int = 100) -> tuple[Event, ...]:
        """The job's newest changes of status, in order. Raises UnknownRecord."""
        query = (
            select(events)
            .where(events.c.job_id == job_id, events.c.type == EventType.STATUS)
            .order_by(events.c.number.desc())
            .limit(bounded(limit, 1, MAX_ROWS))
        )
        return tuple(Event.of(row) for row in reversed(self._rows(query, job_id)))

    def metrics(self, job_id: str, *, after: int = -1, limit: int = 1000) -> tuple[MetricPoint, ...]:
        """A job's metrics at steps greater than `after`, in order. Raises UnknownRecord."""
        query = (
            select(metrics)
            .where(metrics.c.job_id == job_id, metrics.c.step > bounded(after, -1, MAX_NUMBER))
            .order_by(metrics.c.step)
            .limit(bounded(limit, 1, MAX_ROWS))
        )
        return tuple(MetricPoint.of(row) for row in self._rows(query, job_id))

    def metric_texts(
        self, job_id: str, *, from_step: int = 0, to_step: int = MAX_NUMBER, limit: int = MAX_TEXTS
    ) -> MetricTexts | None:
        """A job's metrics of some steps, None if there are none. Raises UnknownRecord.

        The database joins the rows, which would take longer to read one by one than their JSON takes to parse.
        """
        page = (
            select(metrics.c.step, cast(metrics.c["values"], String).label("text"))
            .where(
                metrics.c.job_id == job_id,
                metrics.c.step >= bounded(from_step, 0, MAX_NUMBER),
                metrics.c.step <= bounded(to_step, 0, MAX_NUMBER),
            )
            .order_by(metrics.c.step)
            .limit(bounded(limit, 1, MAX_TEXTS))
            .subquery()
        )
        query = select(
            func.max(page.c.step).label("last_step"),
            func.aggregate_strings(cast(page.c.step, String), ",").label("steps"),
            func.aggregate_strings(page.c.text, ",").label("values"),
        ).having(func.count() > 0)
        rows = self._rows(query, job_id)
        return MetricTexts(**rows[0]) if rows else None

    def latest_metrics(self, job_id: str, *, to_step: int = MAX_NUMBER) -> MetricPoint | None:
        """A job's newest metrics up to a step, if it has any. Raises UnknownRecord."""
        query = (
            select(metrics)
            .where(metrics.c.job_id == job_id, metrics.c.step <= bounded(to_step, 0, MAX_NUMBER))
            .order_by(metrics.c.step.desc())
            .limit(1)
        )
        rows = self._rows(query, job_id)
        return MetricPoint.of(rows[0]) if rows else None

    def prune(self, older_than_s: float, *, limit: int = 50) -> int:
        """Delete the events, except transitions, of up to `limit` jobs that ended longer ago. Of checks, delete all.

        Each job has its own short transaction. Returns how many jobs were pruned; call it again until that is
        0.
        """
        cutoff = self._clock() - older_than_s
        query = (
            select(jobs.c.id, jobs.c.kind)
            .where(jobs.c.pruned_at.is_(None), jobs.c.finished_at <= cutoff)
            .order_by(jobs.c.finished_at)
            .limit(bounded(limit, 1, MAX_ROWS))
        )
        with self._database.reading() as connection:
            ended = connection.execute(query).all()
        for job_id, kind in ended:
            with self._database.writing() as connection:
                if kind is JobKind.CHECK:  # its data set has the verdict
                    connection.execute(delete(events).where(events.c.job_id == job_id))
                    connection.execute(delete(jobs).where(jobs.c.id == job_id))
                    continue
                connection.execute(_droppable(job_id))
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(pruned_at=self._clock()))
        return len(ended)

    def _rows(self, query: Select[*tuple[Any, ...]], job_id: str) -> Sequence[RowMapping]:
        """The rows of a job. Without any, the job is looked up. Raises UnknownRecord."""
        job = select(jobs.c.id).where(jobs.c.id == job_id, *self._seen)
        with self._database.reading() as connection:
            rows = connection.execute(query.where(job.exists()) if self._seen else query).mappings().all()
            if not rows and connection.execute(job).one_or_none() is None:
                raise UnknownRecord("job")
        return rows


def add(connection: Connection, event: Event) -> None:
    """Write an event in the caller's transaction, and now and then delete events beyond the bounds."""
    append(connection, event)
    _trim(connection, event.job_id, event.number, added=1)


def add_points(
    connection: Connection, job_id: str, last: int, now: float, points: Mapping[int, Mapping[str, float]]
) -> None:
    """Write metrics by step, in the caller's transaction, on the curve and as events.

    The last event has the number `last`.
    """
    curve = [{"step": step, "values": finite(values)} for step, values in sorted(points.items())]
    connection.execute(delete(metrics).where(metrics.c.job_id == job_id, metrics.c.step.in_(points)))
    connection.execute(insert(metrics), [{**point, "job_id": job_id, "at": now} for point in curve])
    numbered = enumerate(curve, start=last - len(curve) + 1)
    append(
        connection,
        *(
            Event(job_id, number, now, EventType.METRICS, f"Step {point['step']}.", data=point)
            for number, point in numbered
        ),
    )
    _trim(connection, job_id, last, added=len(curve))


def _trim(connection: Connection, job_id: str, last: int, *, added: int) -> None:
    """Delete the oldest events beyond the bounds, once in a sixteenth of MAX_EVENTS numbers."""
    every = max(1, MAX_EVENTS // 16)
    if last // every == (last - added) // every:
        return
    for kind in (events.c.type == EventType.METRICS, events.c.type.not_in(_KEPT_APART)):
        newest_dropped = (
            select(events.c.number)
            .where(events.c.job_id == job_id, kind)
            .order_by(events.c.number.desc())
            .offset(MAX_EVENTS)
            .limit(1)
        )
        number = connection.execute(newest_dropped).scalar_one_or_none()
        if number is not None:
            connection.execute(_droppable(job_id, kind).where(events.c.number <= number))


def append(connection: Connection, *added: Event) -> None:
    """Write events under numbers that the caller has reserved in the job's locked row."""
    connection.execute(
        insert(events),
        [
            {**vars(event), "message": bounded_message(event.message), "data": bounded_data(event.data)}
            for event in added
        ],
    )


def events_query(job_id: str, after: int) -> Any:
    """The statement of `JobEvents.events`, whose query plan a test checks."""
    return select(events).where(events.c.job_id == job_id, events.c.number > after).order_by(events.c.number)


def _droppable(job_id: str, kind: ColumnElement[bool] = events.c.type != EventType.STATUS) -> Any:
    return delete(events).where(events.c.job_id == job_id, kind)
