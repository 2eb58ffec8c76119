"""Jobs for the routes: submitted, read, asked to stop or go on, and deleted.

Everything here uses the store, so the routes run it in the store's threads (`app.store_threads`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from app.errors import NotFound
from app.jobs.estimate import estimate
from app.jobs.removal import remove_job_files
from app.jobs.validator import JobValidator
from app.jobs.waker import Waker
from app.keys import Caller
from app.registry.manifest import LOG_FILE
from app.run_log import open_log
from app.schemas.jobs import DryRunResult, JobInfo, JobList, job_info, report_of
from app.store import Store
from app.store.records import Event, Job, NewJob
from app.store.specs import EvaluateSpec, FinetuneSpec
from app.store.states import OPEN, TRANSITIONS, Action, JobKind, JobStatus

_NEEDS_A_WORKER = OPEN - {JobStatus.PAUSED}


@dataclass(frozen=True)
class JobUpdate:
    """A job as it is, and its events since a number."""

    job: Job
    events: tuple[Event, ...]
    no_worker: bool


class JobService:
    """Every method raises StoreUnavailable, and UnknownRecord for a job."""

    def __init__(self, store: Store, waker: Waker, validator: JobValidator, data_dir: Path) -> None:
        self._store = store
        self._waker = waker
        self._submissions = validator
        self._data_dir = data_dir

    def submit(
        self, spec: FinetuneSpec | EvaluateSpec, caller: Caller, key: str | None
    ) -> tuple[JobInfo, bool]:
        """Accept a job; the job and whether it is new.

        In one thread, so that a caller who goes away leaves no job that nobody wakes a worker for.

        Raises IdempotencyMismatch, IdempotencyInFlight, and what `JobValidator` does.
        """
        # Before anything is checked: what the spec names may be gone by now, and the replay holds.
        sent = NewJob(spec.kind, spec.as_sent(), owner=caller.name, idempotency_key=key)
        if key is not None and (earlier := self._store.jobs.earlier(sent)) is not None:
            return self._info(earlier), False
        new = self._submissions.new_job(spec, caller, key)
        living = self._store.workers.living_queues()  # nothing may fail between the commit and the answer
        job, is_new = self._store.jobs.submit(new)
        if is_new and job.status is JobStatus.QUEUED:
            self._waker.wake(job)
        return job_info(job, no_worker=_needs_a_worker(job, living)), is_new

    def try_out(self, spec: FinetuneSpec | EvaluateSpec, caller: Caller) -> DryRunResult:
        """Check a job and say what would be done. Raises what `JobValidator` does."""
        resolved = self._submissions.check(spec, caller)
        return DryRunResult(
            kind=spec.kind.value, config=resolved.as_shown(), estimate=estimate(self._store, resolved)
        )

    def list(
        self, *, kind: JobKind | None, status: JobStatus | None, after: str | None, limit: int
    ) -> JobList:
        """Jobs, the newest first."""
        page = self._store.jobs.list(kind=kind, status=status, after=after, limit=limit)
        living = self._store.workers.living_queues()
        infos = [job_info(job, no_worker=_needs_a_worker(job, living)) for job in page.items]
        return JobList(data=infos, has_more=page.has_more)

    def get(self, job_id: str) -> JobInfo:
        """A job, its transitions and newest metrics."""
        return self._info(
            self._store.jobs.get(job_id),
            transitions=self._store.events.transitions(job_id),
            metrics=self._store.events.latest_metrics(job_id),
        )

    def update_since(self, job_id: str, after: int, limit: int) -> JobUpdate:
        """A job, and at most so many of its events with higher numbers; asked again and again."""
        job = self._store.jobs.get(job_id)
        no_worker = _needs_a_worker(job, self._store.workers.living_queues())
        if job.event_count <= after:
            return JobUpdate(job, (), no_worker)
        return JobUpdate(job, self._store.events.events(job_id, after=after, limit=limit), no_worker)

    def cancel(self, job_id: str) -> JobInfo:
        """Cancel, or ask the worker to. Raises JobStateConflict."""
        return self._info(self._store.jobs.request_cancel(job_id))

    def pause(self, job_id: str) -> JobInfo:
        """Take out of the queue, or ask the worker to checkpoint and let go. Raises JobStateConflict."""
        return self._info(self._store.jobs.request_pause(job_id))

    def resume(self, job_id: str) -> JobInfo:
        """Queue again. Raises JobStateConflict."""
        return self._woken(self._store.jobs.request_resume(job_id))

    def retry(self, job_id: str, caller: Caller) -> JobInfo:
        """Take up a failed or cancelled job.

        Raises JobStateConflict, InputsGone, Forbidden, Overloaded, DiskReserve.
        """
        job = self._store.jobs.get(job_id)
        promote = (job.config or {}).get("promote", "never")
        if promote != "never":  # whoever cancelled it may not want the alias to move any more
            caller.check("admin", f"promote: {promote}", param="promote")
        if (job.status, Action.RETRY) in TRANSITIONS:
            self._submissions.check_room()
        return self._woken(self._store.jobs.request_retry(job_id))

    def delete(self, job_id: str) -> JobInfo:
        """Remove the files of a job that has ended; its record stays. Raises JobStateConflict."""
        return self._info(remove_job_files(self._store, self._data_dir / "jobs", job_id))

    def report(self, job_id: str) -> Path:
        """The page of an evaluation's results. Raises NotFound where there is none."""
        path = report_of(self._store.jobs.get(job_id))
        own = (self._data_dir / "jobs" / job_id).resolve()
        file = None if path is None else (self._data_dir / path).resolve()
        if file is None or not file.is_relative_to(own) or not file.is_file():
            raise NotFound(
                "This job has no report: only an evaluation that succeeded has one.", code="no_report"
            )
        return file

    def log(self, job_id: str) -> BinaryIO:
        """The log of a fine-tuning job's run: of its newest attempt, or of its version. Raises NotFound."""
        job = self._store.jobs.get(job_id)
        own = (self._data_dir / "jobs" / job.id).glob(f"[0-9]*/run/{LOG_FILE}")
        logs = sorted(own, key=lambda file: int(file.parts[-3]), reverse=True)
        if job.result_version is not None:
            folder = self._store.versions.get(job.result_version).folder
            logs += [] if folder is None else [self._data_dir / folder / LOG_FILE]
        return open_log(logs)

    def _info(self, job: Job, **beside: Any) -> JobInfo:
        """The job, and whether a worker may take it. Two reads, so that a worker's start may fall between them."""
        living = self._store.workers.living_queues()
        return job_info(job, no_worker=_needs_a_worker(job, living), **beside)

    def _woken(self, job: Job) -> JobInfo:
        self._waker.wake(job)
        return self._info(job)


def _needs_a_worker(job: Job, living: frozenset[JobKind]) -> bool:
    """Whether it waits for a worker, and none of its queue lives."""
    return job.status in _NEEDS_A_WORKER and job.kind not in living
