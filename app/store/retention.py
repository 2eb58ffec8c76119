"""What retention needs of the store: what there is, when it was last used, the removal of jobs, one sweep at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from sqlalchemy import Column, ColumnElement, Connection, and_, case, delete, false, func, or_, select, update

from sds_clip.app.errors import JobStateConflict
from sds_clip.app.store import alias_sql
from sds_clip.app.store.clock import Clock
from sds_clip.app.store.database import Database
from sds_clip.app.store.records import SOURCE_PATH, Alias, DatasetStatus, Job, Record, VersionStatus
from sds_clip.app.store.states import OPEN, TERMINAL, JobKind
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


@dataclass(frozen=True)
class EndedJob(Record):
    """A job that has ended."""

    id: str
    kind: JobKind
    suffix: str | None
    owner: str
    finished_at: float
    result_version: str | None


@dataclass(frozen=True)
class HeldVersion(Record):
    """A version that is not deleted."""

    id: str
    owner: str
    folder: str | None
    base_version: str | None
    used_at: float
    """When it was made, and made again, when the last job that used it ended, or an alias last left it."""
    open_job: str | None = None
    """A job that needs it and has not ended."""


@dataclass(frozen=True)
class HeldDataset(Record):
    """A data set that is ready or was rejected."""

    id: str
    name: str
    owner: str
    is_registered: bool
    used_at: float
    """When it was added or checked, or the last job that used it ended."""
    open_job: str | None = None


@dataclass(frozen=True)
class Holdings:
    """What there is at one moment."""

    at: float
    jobs: Sequence[EndedJob] = ()
    versions: Sequence[HeldVersion] = ()
    datasets: Sequence[HeldDataset] = ()
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """For each alias the version that it points to, and those that rollbacks lead to, nearest first."""


class RetentionRecords:
    """Every method raises StoreUnavailable when the database is unavailable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def holdings(self, kept_for_s: Mapping[JobKind, float]) -> Holdings:
        """What there is. Of jobs, only those of these kinds that ended that long ago."""
        now = self._clock()
        old = [
            and_(jobs.c.kind == kind, jobs.c.finished_at <= now - limit_s)
            for kind, limit_s in kept_for_s.items()
        ]
        with self._database.reading() as connection:
            return Holdings(
                at=now,
                jobs=_ended_jobs(connection, or_(false(), *old)),
                versions=_versions(connection),
                datasets=_datasets(connection),
                aliases=_aliases(connection),
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


def _ended_jobs(connection: Connection, where: ColumnElement[bool]) -> Sequence[EndedJob]:
    columns = [jobs.c[each.name] for each in fields(EndedJob)]
    query = (
        select(*columns)
        .where(jobs.c.status.in_(sorted(TERMINAL)), where)
        .order_by(jobs.c.finished_at, jobs.c.id)
    )
    return list(EndedJob.all(connection, query))


_LAST_END = func.max(jobs.c.finished_at).label("last_end")
_OPEN_JOB = func.min(case((jobs.c.status.in_(sorted(OPEN)), jobs.c.id))).label("open_job")


def _versions(connection: Connection) -> Sequence[HeldVersion]:
    version, at = jobs.c.result_version, func.max(jobs.c.finished_at)
    ended = select(version.label("version"), at.label("at")).group_by(version)
    moved = (
        select(promotions.c.from_version.label("version"), func.max(promotions.c.at).label("at"))
        .where(promotions.c.action.in_(alias_sql.LEAVINGS))
        .group_by(promotions.c.from_version)
    )
    made_again = {each.version: each.at for each in connection.execute(ended)}
    left = {each.version: each.at for each in connection.execute(moved)}
    query = (
        select(versions, _LAST_END, _OPEN_JOB)
        .outerjoin(job_versions, job_versions.c.version_id == versions.c.id)
        .outerjoin(jobs, jobs.c.id == job_versions.c.job_id)
        .where(versions.c.status == VersionStatus.READY)
        .group_by(versions.c.id)
        .order_by(versions.c.created_at, versions.c.id)
    )
    return [
        HeldVersion(
            id=row.id,
            owner=row.owner,
            folder=row.folder,
            base_version=row.base_version,
            used_at=_latest(
                row.created_at, row.used_at, row.last_end, made_again.get(row.id), left.get(row.id)
            ),
            open_job=row.open_job,
        )
        for row in connection.execute(query)
    ]


def _datasets(connection: Connection) -> Sequence[HeldDataset]:
    query = (
        select(datasets, _LAST_END, _OPEN_JOB)
        .outerjoin(job_datasets, job_datasets.c.dataset_id == datasets.c.id)
        .outerjoin(jobs, jobs.c.id == job_datasets.c.job_id)
        .where(datasets.c.status.in_([DatasetStatus.READY, DatasetStatus.REJECTED]))
        .group_by(datasets.c.id)
        .order_by(datasets.c.created_at, datasets.c.id)
    )
    return [
        HeldDataset(
            id=row.id,
            name=row.name,
            owner=row.owner,
            is_registered=SOURCE_PATH in row.source,
            used_at=_latest(row.created_at, row.checked_at, row.used_at, row.last_end),
            open_job=row.open_job,
        )
        for row in connection.execute(query)
    ]


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
