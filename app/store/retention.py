"""What retention needs of the store: what there is, when it was last used, the removal of jobs, one sweep at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, Connection, Row, Table, and_, case, delete, false, func, or_, select, update

from sds_clip.app.errors import JobStateConflict
from sds_clip.app.store import alias_sql
from sds_clip.app.store.paging import MAX_ROWS
from sds_clip.app.store.part import Part
from sds_clip.app.store.records import (
    SOURCE_PATH,
    Alias,
    DatasetStatus,
    Job,
    Json,
    Lease,
    Record,
    VersionStatus,
)
from sds_clip.app.store.states import OPEN, TERMINAL, JobKind, JobStatus
from sds_clip.app.store.tables import (
    aliases,
    datasets,
    events,
    job_datasets,
    job_versions,
    jobs,
    leases,
    metrics,
    promotions,
    versions,
)
from sds_clip.app.store.transitions import locked_job
from sds_clip.app.store.version_sql import insert_if_absent

SWEEP = "retention"
ROWS_AT_ONCE = 5000
"""How many events, or points of a curve, one transaction removes, so that no other writer waits long."""


class Kind(StrEnum):
    """What is kept or removed."""

    VERSION = "version"
    JOB = "job"
    EVALUATION = "evaluation"
    DATASET = "data set"


_JOB_KINDS = {Kind.JOB: JobKind.FINETUNE, Kind.EVALUATION: JobKind.EVALUATE}
_KINDS = {job: kind for kind, job in _JOB_KINDS.items()}


@dataclass(frozen=True)
class Held:
    """A version that is not deleted, a job that has ended, or a data set that is ready or was rejected."""

    kind: Kind
    id: str
    name: str
    owner: str
    used_at: float
    """When a job ended. For others, when they were made, made again or checked, when the last job that used them ended,
    or an alias last left them."""
    folder: str | None = None
    """Where its files are in the data folder. None for registered data and the operator's models, whose files stay."""
    open_job: str | None = None
    """A job that needs it and has not ended."""
    version: str | None = None
    """The base of a version, or the version that a job has made."""

    @property
    def is_operators(self) -> bool:
        """Whether it is a model that the operator brought along."""
        return self.kind is Kind.VERSION and self.folder is None


@dataclass(frozen=True)
class Holdings:
    """What there is at one moment."""

    at: float
    things: Sequence[Held] = ()
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """For each alias the version that it points to, and those that rollbacks lead to, nearest first."""


@dataclass(frozen=True)
class FoundJob(Record):
    """What the cleanup must know of a job whose folder it has found."""

    id: str
    status: JobStatus
    fence: int
    finished_at: float | None
    files_removed_at: float | None
    result_files: Json | None
    """The names of the files of its result."""

    @property
    def lease(self) -> Lease:
        """That of its last attempt."""
        return Lease(self.id, self.fence)


_FOUND = select(
    jobs.c.id,
    jobs.c.status,
    jobs.c.fence,
    jobs.c.finished_at,
    jobs.c.files_removed_at,
    jobs.c.result["files"].label("result_files"),
)


class RetentionRecords(Part):
    """What a sweep and a cleanup read, and the rows that only a sweep removes."""

    def holdings(self, kept_for_s: Mapping[Kind, float]) -> Holdings:
        """What there is. Of jobs, only those of these kinds that ended that long ago."""
        now = self._clock()
        with self._database.reading() as connection:
            return Holdings(
                now,
                [
                    *_versions(connection),
                    *_ended_jobs(connection, {kind: now - limit for kind, limit in kept_for_s.items()}),
                    *_datasets(connection),
                ],
                _aliases(connection),
            )

    def found(self, ids: Iterable[str]) -> tuple[FoundJob, ...]:
        """Those of these jobs that there are. With MAX_ROWS ids or fewer, it is one statement."""
        asked = sorted(ids)
        with self._database.reading() as connection:
            return tuple(
                job
                for start in range(0, len(asked), MAX_ROWS)
                for job in FoundJob.all(
                    connection, _FOUND.where(jobs.c.id.in_(asked[start : start + MAX_ROWS]))
                )
            )

    def remove_job(self, job_id: str, *, ended_for_s: float) -> None:
        """Remove an ended job's row, with its events and curve. Its files must have been removed before.

        Long streams of events take several transactions. If the process dies between them, the job is there without
        the first of its events, and can be removed again, or be retried from the beginning.

        Raises: UnknownRecord; JobStateConflict if the job has not ended, or did so less than `ended_for_s` ago, if
        its files are still there, or if the version that it made is not deleted.
        """
        is_removed = False
        while not is_removed:
            with self._database.writing() as connection:
                job = _removable(connection, job_id, ended_before=self._clock() - ended_for_s)
                is_removed = _thinned(connection, job_id, events.c.number) and _thinned(
                    connection, job_id, metrics.c.step
                )
                if is_removed:
                    _remove_row(connection, job)

    def claim_sweep(self, owner: str, ttl_s: float, *, name: str = SWEEP) -> bool:
        """Claim the right to remove things, or extend it, for `ttl_s`. False if another process has it.

        `name` is for other tasks that only one process at a time may do.
        """
        with self._database.writing() as connection:
            now = self._clock()
            held = {"owner": owner, "lease_until": now + ttl_s}
            new = insert_if_absent(connection, leases).values(name=name, **held).returning(leases.c.name)
            if connection.execute(new).one_or_none() is not None:
                return True
            free = or_(leases.c.owner == owner, leases.c.lease_until <= now)
            claimed = update(leases).where(leases.c.name == name, free).values(held)
            return connection.execute(claimed).rowcount == 1

    def release_sweep(self, owner: str, *, name: str = SWEEP) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(leases).where(leases.c.name == name, leases.c.owner == owner))


def _ended_jobs(connection: Connection, before: Mapping[Kind, float]) -> Iterator[Held]:
    old = [
        and_(jobs.c.kind == _JOB_KINDS[kind], jobs.c.finished_at <= at)
        for kind, at in before.items()
        if kind in _JOB_KINDS
    ]
    query = (
        select(jobs.c.kind, jobs.c.id, jobs.c.suffix, jobs.c.owner, jobs.c.finished_at, jobs.c.result_version)
        .where(jobs.c.status.in_(sorted(TERMINAL)), or_(false(), *old))
        .order_by(jobs.c.finished_at, jobs.c.id)
    )
    for kind, id, suffix, owner, ended_at, made in connection.execute(query):
        yield Held(_KINDS[kind], id, suffix or "", owner, ended_at, f"jobs/{id}", version=made)


def _versions(connection: Connection) -> Iterator[Held]:
    made, left = jobs.c.result_version, promotions.c.from_version
    ended = select(made.label("version"), func.max(jobs.c.finished_at).label("at")).group_by(made)
    moved = (
        select(left.label("version"), func.max(promotions.c.at).label("at"))
        .where(promotions.c.action.in_(alias_sql.LEAVINGS))
        .group_by(left)
    )
    made_again, left_at = (
        {each.version: each.at for each in connection.execute(query)} for query in (ended, moved)
    )
    for row in _used(connection, versions, job_versions.c.version_id, [VersionStatus.READY]):
        times = row.created_at, row.used_at, row.last_end, made_again.get(row.id), left_at.get(row.id)
        yield Held(
            Kind.VERSION, row.id, "", row.owner, _latest(*times), row.folder, row.open_job, row.base_version
        )


def _datasets(connection: Connection) -> Iterator[Held]:
    statuses = [DatasetStatus.READY, DatasetStatus.REJECTED]
    for row in _used(connection, datasets, job_datasets.c.dataset_id, statuses):
        used_at = _latest(row.created_at, row.checked_at, row.used_at, row.last_end)
        folder = None if SOURCE_PATH in row.source else f"datasets/sets/{row.id}"
        yield Held(Kind.DATASET, row.id, row.name, row.owner, used_at, folder, row.open_job)


def _used(
    connection: Connection, table: Table, link: Column[str], statuses: Sequence[StrEnum]
) -> Iterable[Row[Any]]:
    """The rows with these statuses, with the end of the last job that used each, and with an open job that needs it."""
    return connection.execute(
        select(
            table,
            func.max(jobs.c.finished_at).label("last_end"),
            func.min(case((jobs.c.status.in_(sorted(OPEN)), jobs.c.id))).label("open_job"),
        )
        .outerjoin(link.table, link == table.c.id)
        .outerjoin(jobs, jobs.c.id == link.table.c.job_id)
        .where(table.c.status.in_(statuses))
        .group_by(table.c.id)
        .order_by(table.c.created_at, table.c.id)
    )


def _aliases(connection: Connection) -> dict[str, Sequence[str]]:
    query = select(aliases).where(aliases.c.removed_at.is_(None)).order_by(aliases.c.name)
    return {
        alias.name: [alias.version, *(each.version for each in alias_sql.earlier(connection, alias))]
        for alias in Alias.all(connection, query)
    }


def _latest(*times: float | None) -> float:
    return max(time for time in times if time is not None)


def _removable(connection: Connection, job_id: str, *, ended_before: float) -> Job:
    """The job, locked. Raises UnknownRecord, JobStateConflict."""
    job = locked_job(connection, job_id)
    if job.status not in TERMINAL or job.finished_at is None or job.finished_at > ended_before:
        raise JobStateConflict("The job has not ended, or ended too recently; remove it later.")
    if job.files_removed_at is None:
        raise JobStateConflict("The job's files are still there; remove them first.")
    made = or_(versions.c.job_id == job_id, versions.c.id == job.result_version)
    statuses = connection.execute(select(versions.c.status).where(made).with_for_update()).scalars()
    if VersionStatus.READY in set(statuses):
        raise JobStateConflict("The job made a version that is kept; delete the version first.")
    return job


def _thinned(connection: Connection, job_id: str, order: Column[int]) -> bool:
    """Remove the first rows of a job from a table. Returns whether these were the last ones."""
    of_job = order.table.c.job_id == job_id
    next_one = select(order).where(of_job).order_by(order).offset(ROWS_AT_ONCE).limit(1)
    end = connection.execute(next_one).scalar_one_or_none()
    connection.execute(delete(order.table).where(of_job, *(() if end is None else (order < end,))))
    return end is None


def _remove_row(connection: Connection, job: Job) -> None:
    """Remove the row, and note in what it used when that was."""
    for link, column, used in (
        (job_datasets, job_datasets.c.dataset_id, datasets),
        (job_versions, job_versions.c.version_id, versions),
    ):
        linked = used.c.id.in_(select(column).where(link.c.job_id == job.id))
        is_later = or_(used.c.used_at.is_(None), used.c.used_at < job.finished_at)
        connection.execute(update(used).where(linked, is_later).values(used_at=job.finished_at))
        connection.execute(delete(link).where(link.c.job_id == job.id))
    connection.execute(update(versions).where(versions.c.job_id == job.id).values(job_id=None))
    connection.execute(delete(jobs).where(jobs.c.id == job.id))
