"""Jobs for callers: submit, read, list, request to cancel, pause, resume or retry, and remove their files."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from sds_clip.app.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    InputsGone,
    JobStateConflict,
    UnusableRecord,
)
from sds_clip.app.store import version_sql
from sds_clip.app.store.job_events import append
from sds_clip.app.store.names import NamedRows, take
from sds_clip.app.store.paging import EVERYTHING, Search
from sds_clip.app.store.records import (
    WITH_FILES,
    DatasetStatus,
    Event,
    EventType,
    Job,
    Level,
    NewJob,
    Page,
    Submission,
)
from sds_clip.app.store.states import (
    FULFILLED,
    OPEN,
    TERMINAL,
    TRANSITIONS,
    Action,
    JobKind,
    JobStatus,
    TransitionRefused,
)
from sds_clip.app.store.tables import NO_CHECK, datasets, job_datasets, job_versions, jobs
from sds_clip.app.store.transitions import locked_job, move
from sds_clip.app.store.values import lock_number, new_id, payload_hash
from sds_clip.app.store.verdicts import dataset_of

_ASKED = {
    Action.CANCEL: "Cancellation was requested.",
    Action.PAUSE: "A pause was requested.",
    Action.RESUME: "The job was told to go on.",
    Action.RETRY: "A retry was requested.",
}
_DONE = {
    Action.CANCEL: "cancelled",
    Action.PAUSE: "paused",
    Action.RESUME: "resumed",
    Action.RETRY: "retried",
}
_FROM_THE_START = " Its files were removed, so it starts from the beginning."


class JobQueries(NamedRows[Job]):
    """The callers' side of the jobs table. `sds_clip.app.store.leases.JobLeases` is the workers' side.

    With an owner, the jobs of all others are unknown.

    After StoreUnavailable, the request may have taken effect, so repeat it, a submission with its idempotency key.
    To repeat what is asked of a job (`request_...`) is no error. It raises UnknownRecord, and JobStateConflict if the
    job's status does not allow it (`sds_clip.app.store.states`).
    """

    record = Job

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Insert a job as `queued`, or as `validating` while a data set that it needs is being checked.

        Returns the job and whether it is new: the same key with the same request returns the job that it
        created first. Publish a wake-up after this, never before.

        Raises: IdempotencyMismatch for a key used with another request; IdempotencyInFlight while a request
        with the key is being inserted; UnusableRecord for a data set or version that is unknown, rejected or
        deleted; NameTaken.
        """
        with self._database.writing() as connection:
            if (earlier := self._earlier(connection, new)) is not None:
                return earlier, False
            take(connection, jobs, new.owner, new.name)
            status = _lock_needs(connection, new.datasets, new.versions)
            return insert_job(connection, new, status, self._clock(), new_id("job")), True

    def earlier(self, new: NewJob) -> Job | None:
        """The job that this submission created before, by its idempotency key.

        Call it before checking the request: its data set may have been deleted since, and a replay must still
        succeed.

        Raises: IdempotencyMismatch.
        """
        with self._database.reading() as connection:
            return _replay(connection, new)

    def list(
        self,
        *,
        kind: JobKind | None = None,
        status: JobStatus | None = None,
        owner: str | None = None,
        search: Search = EVERYTHING,
        after: str | None = None,
        limit: int = 20,
    ) -> Page[Job]:
        """Jobs, newest first, starting after the id `after`. Checks are listed only by their kind.

        Raises UnknownRecord if `after` does not exist.
        """
        equal = {"kind": kind, "status": status, "owner": owner}
        where = [*search.conditions(jobs), *([NO_CHECK] if kind is None else [])]
        return self._page(equal=equal, where=where, after=after, limit=limit)

    def count(self, status: JobStatus, kind: JobKind | None = None) -> int:
        """The number of jobs of all owners with this status, of one kind or of all but checks."""
        return self._count(jobs.c.status == status, NO_CHECK if kind is None else jobs.c.kind == kind)

    def count_open(self, owner: str) -> int:
        """The number of an owner's jobs that have not ended, without checks."""
        return self._count(jobs.c.owner == owner, jobs.c.status.in_(sorted(OPEN)), NO_CHECK)

    def _count(self, *where: ColumnElement[bool]) -> int:
        with self._database.reading() as connection:
            return connection.execute(select(func.count()).select_from(jobs).where(*where)).scalar_one()

    def request_cancel(self, job_id: str) -> Job:
        """Cancel the job at once, or ask its worker to."""
        return self._request(job_id, Action.CANCEL)

    def request_pause(self, job_id: str) -> Job:
        """Take the job out of the queue, or ask its worker to write a checkpoint and stop."""
        return self._request(job_id, Action.PAUSE)

    def request_resume(self, job_id: str) -> Job:
        """Queue a paused job again, with all its attempts. Publish a wake-up after this."""
        return self._request(job_id, Action.RESUME)

    def request_retry(self, job_id: str) -> Job:
        """Take up a failed or cancelled job from its newest complete checkpoint, with its limits reset.

        Returns the job: `queued`, or `validating` if one of its data sets is being checked again. Publish a wake-up
        after this. Raises InputsGone too.
        """
        now = self._clock()
        with self._database.writing() as connection:
            job = locked_job(connection, job_id, self._seen)
            _check_is_callers(job)
            if job.status in FULFILLED[Action.RETRY]:
                return job
            message, values = _ASKED[Action.RETRY], _UNSPENT
            if job.files_removed_at is not None:
                message, values = message + _FROM_THE_START, values | _NO_PROGRESS
            job = _asked(connection, job, Action.RETRY, now, message, **values)
            try:
                status = _lock_needs(
                    connection,
                    _needs(connection, job_datasets.c.dataset_id, job_id),
                    _needs(connection, job_versions.c.version_id, job_id),
                )
            except UnusableRecord as error:
                raise InputsGone(f"{error.message} Submit a new job.") from None
            if status is JobStatus.VALIDATING:
                return job
            return move(
                connection, job, Action.DATA_READY, now, "The job's data have been checked.", not_before=now
            )

    @contextmanager
    def withheld(self, job_id: str, *, ended_for_s: float = 0.0) -> Iterator[Job]:
        """Keep an ended job from being taken up during the block, and record that its files are removed.

        Raises: UnknownRecord; JobStateConflict if the job has not ended, or did so less than `ended_for_s`
        ago and its files were not removed since.
        """
        now = self._clock()
        with self._database.writing() as connection:
            job = locked_job(connection, job_id, self._seen)
            if job.status not in TERMINAL:
                raise JobStateConflict(
                    f"The job is {job.status} and needs its files; cancel the job before you delete them."
                )
            # Without a time, the clock is not asked: another host's may be ahead.
            is_new = ended_for_s and (job.finished_at is None or now - job.finished_at < ended_for_s)
            if is_new and job.files_removed_at is None:
                raise JobStateConflict("The job ended too recently; delete its files later.")
            removed_at = func.coalesce(jobs.c.files_removed_at, now)
            removed = update(jobs).where(jobs.c.id == job_id).values(files_removed_at=removed_at)
            yield Job.one(connection, removed.returning(jobs))

    def _request(self, job_id: str, action: Action) -> Job:
        now = self._clock()
        values: dict[str, Any] = {
            Action.CANCEL: {"cancel_requested_at": now},
            Action.PAUSE: {"pause_requested_at": now},
            Action.RESUME: {"attempt": 0, "not_before": now},
        }[action]
        with self._database.writing() as connection:
            job = locked_job(connection, job_id, self._seen)
            if action is not Action.RESUME:
                _check_is_callers(job)
            if job.status in FULFILLED[action]:
                return job
            return _asked(connection, job, action, now, _ASKED[action], **values)

    def _earlier(self, connection: Connection, new: NewJob) -> Job | None:
        if new.idempotency_key is None:
            return None
        if not self._database.is_sqlite:  # SQLite allows only one writing transaction at a time anyway
            number = lock_number("submit", new.owner, new.idempotency_key)
            if not connection.execute(select(func.pg_try_advisory_xact_lock(number))).scalar_one():
                raise IdempotencyInFlight
        return _replay(connection, new)


_UNSPENT: dict[str, Any] = {
    "attempt": 0,
    "interruptions": 0,
    "furthest_step": 0,
    "run_time_s": 0.0,
    **dict.fromkeys(
        (
            "error",
            "finished_at",
            "cancel_requested_at",
            "pause_requested_at",
            "pruned_at",
            "files_removed_at",
        )
    ),
}
"""The columns that are reset when a job is retried. So they are in a new one."""
_NO_PROGRESS: dict[str, Any] = {"stage": None, "step": 0, "steps": None}
"""Further columns that are reset if the job starts from the beginning."""


def insert_job(connection: Connection, new: NewJob, status: JobStatus, now: float, id: str) -> Job:
    row = insert(jobs).values(
        **Submission.columns(new),
        **_UNSPENT,
        **_NO_PROGRESS,
        id=id,
        status=status,
        fence=0,
        queued_at=now if status is JobStatus.QUEUED else None,
        not_before=now,
        created_at=now,
        payload_hash=payload_hash(new.kind, new.request),
        event_count=1,
    )
    job = Job.one(connection, row.returning(jobs))
    for table, column, ids in (
        (job_datasets, "dataset_id", new.datasets),
        (job_versions, "version_id", new.versions),
    ):
        if ids:
            connection.execute(insert(table), [{"job_id": job.id, column: each} for each in set(ids)])
    data = {"from": None, "to": status, **({"trace": new.trace} if new.trace else {})}
    append(connection, Event(job.id, 1, now, EventType.STATUS, "The job was accepted.", Level.INFO, data))
    return job


def _check_is_callers(job: Job) -> None:
    """Raise JobStateConflict for a check, since a data set needs its verdict. It only pauses by itself."""
    if job.kind is JobKind.CHECK:
        raise JobStateConflict(
            f"This job is the check of the data set {dataset_of(job)}. It ends by itself, or when you delete the data "
            "set."
        )


def _asked(connection: Connection, job: Job, action: Action, now: float, message: str, **values: Any) -> Job:
    """Apply a caller's request to a job. Raises JobStateConflict."""
    try:
        return move(connection, job, action, now, message, **values)
    except TransitionRefused:
        *others, last = [status for status, allowed in TRANSITIONS if allowed is action]
        possible = f"{', '.join(others)} or {last}" if others else last
        raise JobStateConflict(
            f"A job that is {job.status} cannot be {_DONE[action]}. "
            f"Only a job that is {possible} can be {_DONE[action]}."
        ) from None


def _needs(connection: Connection, column: ColumnElement[str], job_id: str) -> list[str]:
    return list(connection.execute(select(column).where(column.table.c.job_id == job_id)).scalars())


def _replay(connection: Connection, new: NewJob) -> Job | None:
    if new.idempotency_key is None:
        return None
    query = select(jobs).where(jobs.c.owner == new.owner, jobs.c.idempotency_key == new.idempotency_key)
    job = Job.one_or_none(connection, query)
    if job is not None and job.payload_hash != payload_hash(new.kind, new.request):
        raise IdempotencyMismatch
    return job


def _lock_needs(connection: Connection, dataset_ids: Iterable[str], version_ids: Iterable[str]) -> JobStatus:
    """Keep what the job needs from being deleted until its row exists.

    Returns the job's status that follows.
    """
    status = JobStatus.QUEUED
    for dataset_id in sorted(set(dataset_ids)):
        of_id = select(datasets.c.status).where(datasets.c.id == dataset_id)
        found = connection.execute(of_id.with_for_update(read=True)).scalar_one_or_none()
        if found not in WITH_FILES:
            raise UnusableRecord(
                f"The data set {dataset_id} is {found or 'unknown'}; name one that is ready.",
                param="datasets",
            )
        if found is DatasetStatus.VALIDATING:
            status = JobStatus.VALIDATING
    for version_id in sorted(set(version_ids)):
        version_sql.hold(connection, version_id, param="versions")
    return status
