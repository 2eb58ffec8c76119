"""The verdict on a data set, which moves the jobs that wait for it. Statements in a transaction.

They lock the check, then its data set, then the jobs that wait.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, select, update

from sds_clip.app.store.records import Dataset, DatasetStatus, Job, JobError, Level
from sds_clip.app.store.states import Action, JobKind, JobStatus
from sds_clip.app.store.tables import datasets, job_datasets, jobs
from sds_clip.app.store.transitions import locked_job, move

CHECK_PREFIX = "job_"
"""The id of a check is this and the id of its data set, so that there is one at most."""

_TOLD = ("interrupted_too_often", "files_unreadable")
"""The causes for which a data set is rejected under their own codes. All others are `check_died`."""


def check_of(dataset_id: str) -> str:
    return CHECK_PREFIX + dataset_id


def dataset_of(check: Job) -> str:
    return check.id.removeprefix(CHECK_PREFIX)


def conclude(
    connection: Connection, dataset_id: str, now: float, status: DatasetStatus, **values: Any
) -> tuple[Job, ...]:
    """Write the verdict, unless there is one or the data set was deleted, and return the jobs that it has moved."""
    query = select(datasets).where(datasets.c.id == dataset_id, datasets.c.status == DatasetStatus.VALIDATING)
    dataset = Dataset.one_or_none(connection, query.with_for_update())
    if dataset is None:
        return ()
    verdict = update(datasets).where(datasets.c.id == dataset_id)
    connection.execute(verdict.values(status=status, checked_at=now, **values))
    # All jobs before the first count of failures: another verdict may want the same jobs and count.
    waiting = jobs_of(dataset_id, [JobStatus.VALIDATING]).with_for_update(of=jobs)
    moved = (
        _answer(connection, job_id, dataset, status, now)
        for job_id in connection.execute(waiting).scalars().all()
    )
    return tuple(job for job in moved if job is not None)


def give_up(connection: Connection, job: Job, now: float) -> None:
    """Reject the data set if this was its check and has failed."""
    if job.kind is not JobKind.CHECK or job.status is not JobStatus.FAILED or job.error is None:
        return
    code = job.error.code if job.error.code in _TOLD else "check_died"
    problem = {"code": code, "message": f"The data set could not be checked. {job.error.message}"}
    conclude(connection, dataset_of(job), now, DatasetStatus.REJECTED, problems=[problem])


def jobs_of(dataset_id: str, statuses: Sequence[str]) -> Select[Any]:
    """The jobs that need a data set."""
    return (
        select(jobs.c.id, jobs.c.owner)
        .join(job_datasets, job_datasets.c.job_id == jobs.c.id)
        .where(job_datasets.c.dataset_id == dataset_id, jobs.c.status.in_(statuses))
        .order_by(jobs.c.kind, jobs.c.id)  # the order in which jobs, and the counts of failures, are locked
    )


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
