"""Data sets: registered, checked in the background, used by jobs, deleted when no job needs them."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, cast, func, insert, select, update

from sds_clip.app.errors import KeyLimitReached, LeaseLost, Overloaded, RecordInUse
from sds_clip.app.settings import MAX_INTERRUPTIONS
from sds_clip.app.store.database import hold_name
from sds_clip.app.store.names import NamedRows, take
from sds_clip.app.store.paging import EVERYTHING, Search
from sds_clip.app.store.records import WITH_FILES, Dataset, DatasetStatus, Job, JobError, Json, Level, Page
from sds_clip.app.store.states import OPEN, Action, JobStatus
from sds_clip.app.store.tables import datasets, job_datasets, jobs
from sds_clip.app.store.transitions import locked_job, move
from sds_clip.app.store.values import new_id

MAX_CHECKS = 3
"""A data set is rejected after this many checks whose process died under a living worker."""
MAX_UNCHECKED, MAX_UNCHECKED_PER_KEY = 500, 50
"""How many data sets may wait for their check: of all owners, and of one key, which may send a set of each format at
once. An archive of little size may take minutes to check."""

_DELETE_FIRST_S = 60
_CHECK_FIRST_S = 10
_FREE: dict[str, Any] = {"lease_owner": None, "lease_until": 0.0}
"""The lease columns of a data set that is not being checked."""


class Datasets(NamedRows[Dataset]):
    """The table of data sets.

    A check is claimed like a job, with a lease and a fence. A machine that dies is an interruption. A process
    that dies under a living worker is a failed check. After too many of either, the data set is rejected.

    With an owner, the data sets of all others are unknown.
    """

    table, record = datasets, Dataset

    def add(
        self,
        *,
        format: str,
        source: Json,
        name: str = "",
        owner: str = "",
        id: str | None = None,
        size_bytes: int = 0,
        max_stored_bytes: int | None = None,
    ) -> Dataset:
        """Add a data set as `validating`.

        If files are already named for it, `id` is one from `new_dataset_id`. `max_stored_bytes` limits the owner's
        data sets with this one.

        Raises: KeyLimitReached, Overloaded, NameTaken.
        """
        with self._database.writing() as connection:
            hold_name(connection, "stored bytes", owner)
            _check_room(connection, owner)
            if max_stored_bytes is not None:
                stored_bytes = connection.execute(_stored(owner)).scalar_one()
                if stored_bytes + size_bytes > max_stored_bytes:
                    raise stored_too_much(max_stored_bytes)
            take(connection, datasets, owner, name)
            new = insert(datasets).values(
                id=id or new_dataset_id(),
                name=name,
                format=format,
                source=source,
                owner=owner,
                status=DatasetStatus.VALIDATING,
                created_at=self._clock(),
                attempt=0,
                fence=0,
                lease_until=0.0,
                size_bytes=size_bytes,
            )
            return Dataset.one(connection, new.returning(datasets))

    def stored_bytes(self, owner: str) -> int:
        """What the data sets of an owner take on disk, except those that were rejected or deleted."""
        with self._database.reading() as connection:
            return int(connection.execute(_stored(owner)).scalar_one())

    def check_room(self, owner: str) -> None:
        """Raise KeyLimitReached or Overloaded if too many data sets wait for their check."""
        with self._database.reading() as connection:
            _check_room(connection, owner)

    def check_free(self, name: str, owner: str) -> None:
        """Raise NameTaken if one of the owner's data sets has this name."""
        with self._database.reading() as connection:
            take(connection, datasets, owner, name)

    def list(
        self,
        *,
        status: DatasetStatus | None = None,
        format: str | None = None,
        owner: str | None = None,
        search: Search = EVERYTHING,
        after: str | None = None,
        limit: int = 20,
    ) -> Page[Dataset]:
        """Data sets, newest first, starting after the id `after`.

        Deleted ones are listed only by their status.

        Raises UnknownRecord if `after` does not exist.
        """
        where = search.conditions(datasets)
        if status is None:
            where.append(datasets.c.status != DatasetStatus.DELETED)
        equal = {"status": status, "format": format, "owner": owner}
        return self._page(equal=equal, where=where, after=after, limit=limit)

    def claim_check(
        self, owner: str, ttl_s: float, *, formats: Collection[str] | None = None
    ) -> Dataset | None:
        """Claim the oldest data set that is not being checked, for `ttl_s`. None if there is none.

        `owner` names the process that checks, so that its worker can report its death (`check_died`). `formats` are
        those that it knows, None for all. Another release may know others.
        """
        while True:
            with self._database.writing() as connection:
                now = self._clock()
                dataset = Dataset.one_or_none(connection, _unchecked(now, formats))
                if dataset is None:
                    return None
                interruptions = dataset.interruptions + (dataset.lease_owner is not None)
                problem = _used_up(dataset.attempt, interruptions)
                if problem is None:
                    taken = _guarded(dataset).values(
                        fence=dataset.fence + 1,
                        interruptions=interruptions,
                        lease_owner=owner,
                        lease_until=now + ttl_s,
                    )
                    return Dataset.one(connection, taken.returning(datasets))
                self._conclude(connection, dataset, now, DatasetStatus.REJECTED, problems=[problem])

    def renew_check(self, claimed: Dataset, ttl_s: float) -> bool:
        """Extend the lease to `ttl_s` from now.

        False if another process has taken over or the data set was deleted.
        """
        with self._database.writing() as connection:
            return _is_set(connection, claimed, lease_until=self._clock() + ttl_s)

    def release_check(self, claimed: Dataset) -> bool:
        """Give back a check that was stopped on purpose. It can be claimed at once, and counts as nothing.

        False if the check is no longer this process's, or has a verdict.
        """
        with self._database.writing() as connection:
            return _is_set(connection, claimed, fence=claimed.fence + 1, **_FREE)

    def check_died(self, owner: str) -> None:
        """Free what the named process was checking, and count a failed check.

        The worker of a check calls this when the process died while the worker lived on.
        """
        statement = update(datasets).where(
            datasets.c.lease_owner == owner, datasets.c.status == DatasetStatus.VALIDATING
        )
        with self._database.writing() as connection:
            connection.execute(
                statement.values(attempt=datasets.c.attempt + 1, fence=datasets.c.fence + 1, **_FREE)
            )

    def accept(
        self,
        claimed: Dataset,
        *,
        content_hash: str,
        counts: Json,
        problems: Sequence[Json] = (),
        statistics: Json | None = None,
        size_bytes: int | None = None,
    ) -> tuple[Job, ...]:
        """Mark the data as `ready`. `size_bytes` is the size of the files if it differs from that of the upload.

        Returns the jobs that waited for it and are queued now, for which to wake workers.

        Raises: LeaseLost if another process has taken over or the data set was deleted.
        """
        return self._finish(
            claimed,
            DatasetStatus.READY,
            content_hash=content_hash,
            counts=counts,
            problems=problems,
            statistics=statistics,
            size_bytes=claimed.size_bytes if size_bytes is None else size_bytes,
        )

    def reject(
        self, claimed: Dataset, *, problems: Sequence[Json], counts: Json | None = None
    ) -> tuple[Job, ...]:
        """Mark the data as `rejected`. Returns the jobs that waited for it and have failed.

        Raises: LeaseLost if another process has taken over or the data set was deleted.
        """
        return self._finish(
            claimed,
            DatasetStatus.REJECTED,
            counts=counts,
            problems=problems,
        )

    def delete(self, dataset_id: str) -> Dataset:
        """Mark a data set as deleted. The caller then removes its files. Repeating it is not an error.

        Raises: UnknownRecord; RecordInUse while a job that has not ended needs it.
        """
        with self._database.writing() as connection:
            dataset = self._known(connection, dataset_id, lock=True)
            if dataset.status is DatasetStatus.DELETED:
                return dataset
            job = connection.execute(_jobs_of(dataset_id, sorted(OPEN)).limit(1)).first()
            if job is not None:
                which = f"The job {job.id}" if self._owner in (None, job.owner) else "A job of another key"
                raise RecordInUse(
                    f"{which} needs the data set {dataset_id}; cancel the job first.", param="dataset"
                )
            deleted = update(datasets).where(datasets.c.id == dataset_id).values(status=DatasetStatus.DELETED)
            return Dataset.one(connection, deleted.returning(datasets))

    def _finish(self, claimed: Dataset, status: DatasetStatus, **values: Any) -> tuple[Job, ...]:
        with self._database.writing() as connection:
            dataset = self._known(connection, claimed.id, lock=True)
            if dataset.fence != claimed.fence or dataset.status is not DatasetStatus.VALIDATING:
                raise LeaseLost(f"This process no longer holds the check of {claimed.id}.")
            return self._conclude(connection, dataset, self._clock(), status, **values)

    def _conclude(
        self, connection: Connection, dataset: Dataset, now: float, status: DatasetStatus, **values: Any
    ) -> tuple[Job, ...]:
        """Write the verdict and move the jobs that waited for it, in one transaction."""
        connection.execute(_guarded(dataset).values(status=status, checked_at=now, **_FREE, **values))
        waiting = connection.execute(_jobs_of(dataset.id, [JobStatus.VALIDATING])).scalars().all()
        moved = (_answer(connection, job_id, dataset, status, now) for job_id in waiting)
        return tuple(job for job in moved if job is not None)


def stored_too_much(limit: int) -> KeyLimitReached:
    return KeyLimitReached(
        "max_stored_bytes_per_key",
        limit,
        retry_after_s=_DELETE_FIRST_S,
        advice="delete data sets, then send it again",
    )


def _check_room(connection: Connection, owner: str) -> None:
    waiting = select(func.count()).select_from(datasets).where(datasets.c.status == DatasetStatus.VALIDATING)
    of_owner = waiting.where(datasets.c.owner == owner)
    if owner and connection.execute(of_owner).scalar_one() >= MAX_UNCHECKED_PER_KEY:
        raise KeyLimitReached(
            "max_unchecked_datasets_per_key",
            MAX_UNCHECKED_PER_KEY,
            retry_after_s=_CHECK_FIRST_S,
            advice="wait until some of its data sets are checked, or delete some",
        )
    if connection.execute(waiting).scalar_one() >= MAX_UNCHECKED:
        raise Overloaded(
            f"The server has {MAX_UNCHECKED} data sets to check and accepts no more; try again later, or delete some.",
            retry_after_s=_CHECK_FIRST_S,
        )


def _stored(owner: str) -> Select[Any]:
    """The sum of the bytes of an owner's data sets that have files."""
    total = cast(func.coalesce(func.sum(datasets.c.size_bytes), 0), BigInteger)
    return select(total).where(datasets.c.owner == owner, datasets.c.status.in_(WITH_FILES))


def _used_up(attempts: int, interruptions: int) -> Json | None:
    """The problem of a data set whose check has failed or was interrupted too often, or None."""
    if attempts >= MAX_CHECKS:
        return {
            "code": "check_died",
            "message": f"The process that checks the data set died {attempts} times.",
        }
    if interruptions > MAX_INTERRUPTIONS:
        return {
            "code": "interrupted_too_often",
            "message": f"The check of the data set was interrupted {interruptions} times; register it again.",
        }
    return None


def new_dataset_id() -> str:
    """An id for a data set whose files are written before its row."""
    return new_id("ds")


def _answer(
    connection: Connection, job_id: str, dataset: Dataset, status: DatasetStatus, now: float
) -> Job | None:
    job = locked_job(connection, job_id)
    if job.status is not JobStatus.VALIDATING:  # it was cancelled while this waited for the lock
        return None
    if status is DatasetStatus.REJECTED:
        error = JobError(
            "dataset_rejected", f"The data set {dataset.id} was rejected; its problems say why.", "datasets"
        )
        return move(connection, job, Action.DATA_REJECTED, now, error.message, level=Level.ERROR, error=error)
    unready = connection.execute(
        select(datasets.c.id)
        .join(job_datasets, job_datasets.c.dataset_id == datasets.c.id)
        .where(job_datasets.c.job_id == job_id, datasets.c.status != DatasetStatus.READY)
    ).first()
    if unready is not None:
        return None
    return move(connection, job, Action.DATA_READY, now, "The job's data have been checked.", not_before=now)


def _unchecked(now: float, formats: Collection[str] | None) -> Any:
    known = [] if formats is None else [datasets.c.format.in_(sorted(formats))]
    return (
        select(datasets)
        .where(datasets.c.status == DatasetStatus.VALIDATING, datasets.c.lease_until <= now, *known)
        .order_by(datasets.c.created_at, datasets.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def _guarded(claimed: Dataset) -> Any:
    return update(datasets).where(
        datasets.c.id == claimed.id,
        datasets.c.fence == claimed.fence,
        datasets.c.status == DatasetStatus.VALIDATING,
    )


def _is_set(connection: Connection, claimed: Dataset, **values: Any) -> bool:
    return bool(connection.execute(_guarded(claimed).values(**values)).rowcount == 1)


def _jobs_of(dataset_id: str, statuses: Sequence[str]) -> Any:
    return (
        select(jobs.c.id, jobs.c.owner)
        .join(job_datasets, job_datasets.c.job_id == jobs.c.id)
        .where(job_datasets.c.dataset_id == dataset_id, jobs.c.status.in_(statuses))
        .order_by(jobs.c.kind, jobs.c.id)  # the order in which jobs, and the counts of failures, are locked
    )
