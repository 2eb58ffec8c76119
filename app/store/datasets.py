"""Data sets: registered, checked in the background, used by jobs, deleted when no job needs them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, cast, func, insert, select, update

from sds_clip.app.errors import KeyLimitReached, Overloaded, RecordInUse
from sds_clip.app.store.database import hold_name
from sds_clip.app.store.jobs import insert_job
from sds_clip.app.store.migrate import keep_oldest
from sds_clip.app.store.names import NamedRows, take
from sds_clip.app.store.paging import EVERYTHING, Search
from sds_clip.app.store.records import WITH_FILES, Dataset, DatasetStatus, Job, Json, Lease, NewJob, Page
from sds_clip.app.store.states import HELD, OPEN, TRANSITIONS, Action, JobKind, JobStatus
from sds_clip.app.store.tables import datasets, jobs, workers
from sds_clip.app.store.transitions import leased_job, lost, move
from sds_clip.app.store.values import new_id
from sds_clip.app.store.verdicts import CHECK_PREFIX, check_of, conclude, dataset_of, jobs_of
from sds_clip.app.store.workers import LIVING_S

CHECKS = "0017"
"""The migration of the first programs that know the jobs that check data sets."""
MAX_UNCHECKED, MAX_UNCHECKED_PER_KEY = 500, 50
"""How many data sets may wait for their check: of all owners, and of one key, which may send a set of each format at
once. An archive of little size may take minutes to check."""

_DELETE_FIRST_S = 60
_CHECK_FIRST_S = 10


class Datasets(NamedRows[Dataset]):
    """The table of data sets. Each is checked by a job, which `enlist_checks` submits.

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
                _check_stored(connection, owner, size_bytes, max_stored_bytes)
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

    def lack_checks(self, formats: Collection[str]) -> bool:
        """Whether a data set of these formats waits for a check that has no row yet."""
        with self._database.reading() as connection:
            return connection.execute(_unlisted(self._clock(), formats).limit(1)).first() is not None

    def enlist_checks(self, formats: Collection[str]) -> tuple[Job, ...]:
        """Submit the checks of data sets that wait for one, and return them.

        They count as created when their data sets were. `formats` are those that this program knows. Another release
        may know others.

        While a worker of the release before lives, which does not know such jobs, none is submitted. Once there is one,
        no program of that release may start.
        """
        with self._database.writing() as connection:
            hold_name(connection, "checks")
            now = self._clock()
            is_old = workers.c.seen_at >= now - LIVING_S, workers.c.clock_skew_s.is_(None)
            if connection.execute(select(workers.c.id).where(*is_old)).first() is not None:
                return ()
            keep_oldest(connection, CHECKS)
            waiting = Dataset.all(connection, _unlisted(now, formats).limit(MAX_UNCHECKED))
            return tuple(_submit(connection, dataset) for dataset in waiting)

    def checks(self, found: Iterable[Dataset]) -> Mapping[str, Job]:
        """The checks of those data sets that have no verdict, by the ids of these. One may not be submitted yet."""
        ids = [check_of(each.id) for each in found if each.status is DatasetStatus.VALIDATING]
        with self._database.reading() as connection:
            checks = Job.all(connection, select(jobs).where(jobs.c.id.in_(ids)))
        return {dataset_of(check): check for check in checks}

    def accept(
        self,
        lease: Lease,
        *,
        content_hash: str,
        counts: Json,
        problems: Sequence[Json] = (),
        statistics: Json | None = None,
        size_bytes: int | None = None,
        max_stored_bytes: int | None = None,
    ) -> tuple[Job, ...]:
        """End a check, and mark its data as `ready`. `size_bytes` is given if it differs from that of the upload.
        `max_stored_bytes` then limits the owner's data sets with this one: others may have grown during the check.

        Returns the jobs that waited for the data and are queued now, for which to wake workers. Data that have a
        verdict keep it.

        Raises: LeaseLost if another process has taken over; KeyLimitReached, after which the check goes on.
        """
        values: dict[str, Any] = {"content_hash": content_hash, "counts": counts, "problems": problems}
        if size_bytes is not None:
            values["size_bytes"] = size_bytes
        return self._finish(lease, DatasetStatus.READY, max_stored_bytes, statistics=statistics, **values)

    def reject(
        self, lease: Lease, *, problems: Sequence[Json], counts: Json | None = None
    ) -> tuple[Job, ...]:
        """As `accept`, but mark the data as `rejected`. Returns the jobs that waited for them and have failed."""
        return self._finish(lease, DatasetStatus.REJECTED, counts=counts, problems=problems)

    def delete(self, dataset_id: str) -> Dataset:
        """Mark a data set as deleted, and end its check. The caller then removes its files. It may be repeated.

        Raises: UnknownRecord; RecordInUse while a job that has not ended needs it.
        """
        with self._database.writing() as connection:
            # The check first, as its verdict does.
            of_id = select(jobs).where(jobs.c.id == check_of(dataset_id))
            check = Job.one_or_none(connection, of_id.with_for_update())
            dataset = self._known(connection, dataset_id, lock=True)
            if dataset.status is DatasetStatus.DELETED:
                return dataset
            job = connection.execute(jobs_of(dataset_id, sorted(OPEN)).limit(1)).first()
            if job is not None:
                which = f"The job {job.id}" if self._owner in (None, job.owner) else "A job of another key"
                raise RecordInUse(
                    f"{which} needs the data set {dataset_id}; cancel the job first.", param="dataset"
                )
            if check is not None and (check.status, Action.CANCEL) in TRANSITIONS:
                move(connection, check, Action.CANCEL, self._clock(), "The data set was deleted.")
            deleted = update(datasets).where(datasets.c.id == dataset_id).values(status=DatasetStatus.DELETED)
            return Dataset.one(connection, deleted.returning(datasets))

    def _finish(
        self, lease: Lease, status: DatasetStatus, max_stored_bytes: int | None = None, **values: Any
    ) -> tuple[Job, ...]:
        with self._database.writing() as connection:
            check, now = leased_job(connection, lease), self._clock()
            if check.status is JobStatus.SUCCEEDED:  # the answer to an earlier call was lost
                return ()
            if check.status not in HELD:
                raise lost(lease)
            if max_stored_bytes is not None and "size_bytes" in values:
                hold_name(connection, "stored bytes", check.owner)
                id = dataset_of(check)
                _check_stored(connection, check.owner, values["size_bytes"], max_stored_bytes, besides=id)
            told, result = f"The data set is {status}.", {"status": status}
            # First the check, then the verdict, as when a check fails: both lock the same counts.
            move(connection, check, Action.SUCCEED, now, told, result=result)
            return conclude(connection, dataset_of(check), now, status, **values)


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


def _check_stored(
    connection: Connection, owner: str, size_bytes: int, limit: int, *, besides: str = ""
) -> None:
    """Raise KeyLimitReached if an owner's data sets, except one, leave no room for so much."""
    others = connection.execute(_stored(owner).where(datasets.c.id != besides)).scalar_one()
    if others + size_bytes > limit:
        raise stored_too_much(limit)


def _stored(owner: str) -> Select[Any]:
    """The sum of the bytes of an owner's data sets that have files."""
    total = cast(func.coalesce(func.sum(datasets.c.size_bytes), 0), BigInteger)
    return select(total).where(datasets.c.owner == owner, datasets.c.status.in_(WITH_FILES))


def new_dataset_id() -> str:
    """An id for a data set whose files are written before its row."""
    return new_id("ds")


def _submit(connection: Connection, dataset: Dataset) -> Job:
    spec = {"dataset": dataset.id}
    check = NewJob(JobKind.CHECK, spec, spec, owner=dataset.owner)
    return insert_job(connection, check, JobStatus.QUEUED, dataset.created_at, check_of(dataset.id))


def _unlisted(now: float, formats: Collection[str]) -> Select[Any]:
    """The data sets whose check has no row. A process of the release before may still hold the lease of one."""
    return (
        select(datasets)
        .where(
            datasets.c.status == DatasetStatus.VALIDATING,
            datasets.c.lease_until <= now,
            datasets.c.format.in_(sorted(formats)),
            ~select(jobs.c.id).where(jobs.c.id == CHECK_PREFIX + datasets.c.id).exists(),
        )
        .order_by(datasets.c.created_at, datasets.c.id)
    )
