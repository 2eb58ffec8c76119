"""Jobs for the routes: submitted after all that can be checked was, read, asked to stop or go on, and deleted."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from app.errors import NotFound
from app.jobs.estimate import estimate
from app.jobs.removal import remove_job_files
from app.jobs.submission import Submissions
from app.jobs.waker import Waker
from app.keys import Caller
from app.registry.manifest import LOG_FILE
from app.run_log import open_log
from app.schemas.finetune import DryRunResult, EvaluateRequest, FinetuneRequest
from app.schemas.jobs import report_of
from app.store import Store
from app.store.paging import MAX_EVENTS
from app.store.records import Event, Job, MetricPoint, NewJob, Page
from app.store.states import OPEN, TRANSITIONS, Action, JobKind, JobStatus
from app.store.workers import Worker
from app.store_threads import StoreThreads

_NEEDS_A_WORKER = OPEN - {JobStatus.PAUSED}


@dataclass(frozen=True)
class JobView:
    """A job with what is told about it beside its row."""

    job: Job
    no_worker: bool
    """Whether it waits for a worker, and none of its queue lives."""
    transitions: tuple[Event, ...] | None = None
    metrics: MetricPoint | None = None


@dataclass(frozen=True)
class News:
    """A job as it is, and its events since a number."""

    job: Job
    events: tuple[Event, ...]
    no_worker: bool


class JobService:
    """Every method but those said otherwise raises StoreUnavailable, StoreBusy, and UnknownRecord for a job."""

    def __init__(
        self, store: Store, threads: StoreThreads, waker: Waker, submissions: Submissions, data_dir: Path
    ) -> None:
        self._store = store
        self._threads = threads
        self._waker = waker
        self._submissions = submissions
        self._data_dir = data_dir

    async def finetune(
        self, request: FinetuneRequest, caller: Caller, key: str | None
    ) -> tuple[JobView, bool]:
        """Accept a fine-tuning job; the job and whether it is new. Raises what `Submissions` does."""
        prepare = partial(self._submissions.finetune, request, caller)
        return await self._threads.run(lambda: self._submit(prepare, key))

    async def evaluate(
        self, request: EvaluateRequest, caller: Caller, key: str | None
    ) -> tuple[JobView, bool]:
        """Accept an evaluation job; the job and whether it is new. Raises what `Submissions` does."""
        prepare = partial(self._submissions.evaluate, request, caller)
        return await self._threads.run(lambda: self._submit(prepare, key))

    async def try_finetune(self, request: FinetuneRequest, caller: Caller) -> DryRunResult:
        """Check a fine-tuning job and say what would be done. Raises what `Submissions` does."""
        return await self._threads.run(lambda: self._tried(self._submissions.finetune(request, caller, None)))

    async def try_evaluate(self, request: EvaluateRequest, caller: Caller) -> DryRunResult:
        """Check an evaluation job and say what would be done. Raises what `Submissions` does."""
        return await self._threads.run(lambda: self._tried(self._submissions.evaluate(request, caller, None)))

    async def list(
        self, *, kind: JobKind | None, status: JobStatus | None, after: str | None, limit: int
    ) -> Page[JobView]:
        """Jobs, the newest first."""

        def read() -> Page[JobView]:
            page = self._store.jobs.list(kind=kind, status=status, after=after, limit=limit)
            living = self._store.workers.living_queues()
            return Page(tuple(_view(job, living) for job in page.items), page.has_more)

        return await self._threads.run(read)

    async def get(self, job_id: str) -> JobView:
        """A job, its transitions and newest metrics."""
        return await self._threads.run(
            lambda: replace(
                self._told(self._store.jobs.get(job_id)),
                transitions=self._store.journal.transitions(job_id),
                metrics=self._store.journal.latest_metrics(job_id),
            )
        )

    async def news(self, job_id: str, after: int, limit: int) -> News:
        """A job, and at most so many of its events with higher numbers; asked again and again."""

        def read() -> News:
            view = self._told(self._store.jobs.get(job_id))
            if view.job.event_count <= after:
                return News(view.job, (), view.no_worker)
            events = self._store.journal.events(job_id, after=after, limit=limit)
            return News(view.job, events, view.no_worker)

        return await self._threads.run(read)

    async def events(self, job_id: str, after: int, limit: int) -> Page[Event]:
        """A job's events with higher numbers."""
        assert limit < MAX_EVENTS
        found = await self._threads.run(
            lambda: self._store.journal.events(job_id, after=after, limit=limit + 1)
        )
        return Page(found[:limit], len(found) > limit)

    async def metrics(self, job_id: str, after: int, limit: int) -> Page[MetricPoint]:
        """A job's metrics at higher steps."""
        assert limit < MAX_EVENTS
        found = await self._threads.run(
            lambda: self._store.journal.metrics(job_id, after=after, limit=limit + 1)
        )
        return Page(found[:limit], len(found) > limit)

    async def cancel(self, job_id: str) -> JobView:
        """Cancel, or ask the worker to. Raises JobStateConflict."""
        return await self._threads.run(lambda: self._told(self._store.jobs.request_cancel(job_id)))

    async def pause(self, job_id: str) -> JobView:
        """Take out of the queue, or ask the worker to checkpoint and let go. Raises JobStateConflict."""
        return await self._threads.run(lambda: self._told(self._store.jobs.request_pause(job_id)))

    async def resume(self, job_id: str) -> JobView:
        """Queue again. Raises JobStateConflict."""
        return await self._threads.run(lambda: self._woken(self._store.jobs.request_resume(job_id)))

    async def retry(self, job_id: str, caller: Caller) -> JobView:
        """Take up a failed or cancelled job.

        Raises JobStateConflict, InputsGone, Forbidden, Overloaded, DiskReserve.
        """

        def ask() -> JobView:
            job = self._store.jobs.get(job_id)
            promote = (job.config or {}).get("promote", "never")
            if promote != "never":  # whoever cancelled it may not want the alias to move any more
                caller.check("admin", f"promote: {promote}", param="promote")
            if (job.status, Action.RETRY) in TRANSITIONS:
                self._submissions.check_room()
            return self._woken(self._store.jobs.request_retry(job_id))

        return await self._threads.run(ask)

    async def delete(self, job_id: str) -> JobView:
        """Remove the files of a job that has ended; its record stays. Raises JobStateConflict."""
        jobs_dir = self._data_dir / "jobs"
        return await self._threads.run(lambda: self._told(remove_job_files(self._store, jobs_dir, job_id)))

    async def workers(self) -> tuple[Worker, ...]:
        """Every worker of the last day."""
        return await self._threads.run(self._store.workers.list)

    async def report(self, job_id: str) -> Path:
        """The page of an evaluation's results. Raises NotFound where there is none."""
        path = report_of(await self._threads.run(lambda: self._store.jobs.get(job_id)))
        own = (self._data_dir / "jobs" / job_id).resolve()
        file = None if path is None else (self._data_dir / path).resolve()
        if file is None or not file.is_relative_to(own) or not file.is_file():
            raise NotFound(
                "This job has no report: only an evaluation that succeeded has one.", code="no_report"
            )
        return file

    async def log(self, job_id: str) -> BinaryIO:
        """The log of a fine-tuning job's run: of its newest attempt, or of its version. Raises NotFound."""

        def find() -> BinaryIO:
            job = self._store.jobs.get(job_id)
            own = (self._data_dir / "jobs" / job.id).glob(f"[0-9]*/run/{LOG_FILE}")
            logs = sorted(own, key=lambda file: int(file.parts[-3]), reverse=True)
            if job.result_version is not None:
                folder = self._store.versions.get(job.result_version).folder
                logs += [] if folder is None else [self._data_dir / folder / LOG_FILE]
            return open_log(logs)

        return await self._threads.run(find)

    def _told(self, job: Job) -> JobView:
        """The job, and whether a worker may take it. Two reads, so that a worker's start may fall between them."""
        return _view(job, self._store.workers.living_queues())

    def _woken(self, job: Job) -> JobView:
        self._waker.wake(job)
        return self._told(job)

    def _submit(self, prepare: Callable[[str | None], NewJob | Job], key: str | None) -> tuple[JobView, bool]:
        """In one thread, so that a caller who goes away leaves no job that nobody wakes a worker for."""
        prepared = prepare(key)
        if isinstance(prepared, Job):
            return self._told(prepared), False
        living = self._store.workers.living_queues()  # nothing may fail between the commit and the answer
        job, is_new = self._store.jobs.submit(prepared)
        if is_new and job.status is JobStatus.QUEUED:
            self._waker.wake(job)
        return _view(job, living), is_new

    def _tried(self, prepared: NewJob | Job) -> DryRunResult:
        assert isinstance(prepared, NewJob)
        return DryRunResult(
            kind=prepared.kind.value,
            config=dict(prepared.config or {}),
            estimate=estimate(self._store, prepared),
        )


def _view(job: Job, living: Collection[JobKind]) -> JobView:
    return JobView(job, job.status in _NEEDS_A_WORKER and job.kind not in living)
