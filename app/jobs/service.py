"""The job operations behind the routes: submit, read, control and delete."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Row

from sds_clip.app import tracing
from sds_clip.app.errors import NoReport
from sds_clip.app.inside import inside, job_file, version_folder
from sds_clip.app.jobs.checkpoints import attempts_in, checkpoints_of
from sds_clip.app.jobs.curves import curves_of
from sds_clip.app.jobs.estimate import estimate
from sds_clip.app.jobs.validator import JobValidator
from sds_clip.app.jobs.waker import Waker
from sds_clip.app.joined_calls import JoinedCalls
from sds_clip.app.keys import Caller
from sds_clip.app.removal import remove_job_files
from sds_clip.app.run_log import open_log
from sds_clip.app.schemas.curves import Curves
from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.app.schemas.finetune import FinetuneSpec
from sds_clip.app.schemas.jobs import (
    CheckpointInfo,
    CheckpointList,
    DryRunResult,
    EventList,
    JobInfo,
    JobList,
    MetricList,
    MetricPointInfo,
    job_info,
    report_of,
)
from sds_clip.app.schemas.workers import WorkerInfo, WorkerList
from sds_clip.app.store import SeenBy, Workspace
from sds_clip.app.store.alias_names import DEFAULT
from sds_clip.app.store.job_events import MetricTexts
from sds_clip.app.store.names import is_id
from sds_clip.app.store.paging import Search
from sds_clip.app.store.records import Event, Job, MetricPoint, NewJob
from sds_clip.app.store.states import OPEN, TRANSITIONS, Action, JobKind, JobStatus
from sds_clip.app.store_threads import StoreThreads, in_store_thread
from sds_clip.models.run_files import LOG_FILE

CurvesAsked = tuple[str | None, str, tuple[str, ...], int, int, int]
"""Whose jobs are seen, the job, the names, the number of points, and the first and the last step."""
_NEEDS_A_WORKER = OPEN - {JobStatus.PAUSED}


@dataclass(frozen=True)
class JobUpdate:
    """A job's current state, and its events after a given number."""

    job: Job
    events: tuple[Event, ...]
    no_worker: bool


class JobService:
    """Submits, reads and controls jobs. It reaches the store only as the workspace of a caller.

    Every method raises StoreUnavailable and StoreBusy, and UnknownRecord for a job that the caller does not see. Those
    that ask something of a job raise JobStateConflict, and do what `sds_clip.app.store.jobs.JobQueries` says.
    """

    def __init__(
        self, seen_by: SeenBy, threads: StoreThreads, waker: Waker, validator: JobValidator, data_dir: Path
    ) -> None:
        self._seen_by = seen_by
        self._threads = threads
        self._waker = waker
        self._validator = validator
        self._data_dir = data_dir
        self._jobs_dir = data_dir / "jobs"
        self._curves = JoinedCalls[CurvesAsked, Curves]()
        self._curves_turn = asyncio.Lock()

    @in_store_thread
    def submit(
        self, spec: FinetuneSpec | EvaluateSpec, caller: Caller, key: str | None
    ) -> tuple[JobInfo, bool]:
        """Accept a job. Returns the job and whether it is new.

        All of it runs in one thread, so a caller who disconnects cannot leave a job behind without a wake-up.

        Raises IdempotencyMismatch, IdempotencyInFlight, and what `JobValidator` raises.
        """
        # A replay is answered before any check, because what the spec names may have been removed since.
        store = self._seen_by(caller.sees)
        sent = NewJob(spec.kind, spec.as_sent(), owner=caller.name, idempotency_key=key)
        if key is not None and (earlier := store.jobs.earlier(sent)) is not None:
            return _info(store, earlier), False
        new = replace(self._validator.new_job(spec, caller, key), trace=tracing.carrier())
        # Read before the job is inserted: nothing may fail between the commit and the answer.
        living = store.workers.living_queues()
        job, is_new = store.jobs.submit(new)
        if is_new and job.status is JobStatus.QUEUED:
            self._waker.wake(job.kind, job.id)
        return job_info(job, no_worker=needs_a_worker(job, living)), is_new

    @in_store_thread
    def try_out(self, spec: FinetuneSpec | EvaluateSpec, caller: Caller) -> DryRunResult:
        """Check a job and describe what it would do. Raises what `JobValidator` raises."""
        resolved = self._validator.check(spec, caller)
        found = estimate(self._seen_by(caller.sees), resolved)
        return DryRunResult(kind=spec.kind.value, config=resolved.as_shown(), estimate=found)

    async def id_of(self, caller: Caller, given: str) -> str:
        """The id of the job that an id or a name stands for. Raises AmbiguousName."""
        if is_id(given):
            return given
        return await self._threads.run(self._seen_by(caller.sees).jobs.named, given, caller.name)

    @in_store_thread
    def list(
        self,
        caller: Caller,
        *,
        kind: JobKind | None,
        status: JobStatus | None,
        owner: str | None,
        search: Search,
        after: str | None,
        limit: int,
    ) -> JobList:
        store = self._seen_by(caller.sees)
        page = store.jobs.list(kind=kind, status=status, owner=owner, search=search, after=after, limit=limit)
        living = store.workers.living_queues()
        infos = [job_info(job, no_worker=needs_a_worker(job, living)) for job in page.items]
        return JobList(data=infos, has_more=page.has_more)

    @in_store_thread
    def get(self, caller: Caller, job_id: str) -> JobInfo:
        store = self._seen_by(caller.sees)
        job = store.jobs.get(job_id)
        return _info(
            store,
            job,
            request=job.request,
            transitions=store.events.transitions(job_id),
            metrics=store.events.latest_metrics(job_id),
            worker_silent_since=store.workers.silent_since(job),
            now=store.now(),
        )

    @in_store_thread
    def update_since(self, caller: Caller, job_id: str, after: int, limit: int) -> JobUpdate:
        """A job, and at most `limit` of its events after number `after`.

        It is cheap when there are no new events.
        """
        store = self._seen_by(caller.sees)
        job = store.jobs.get(job_id)
        no_worker = needs_a_worker(job, store.workers.living_queues())
        if job.event_count <= after:
            return JobUpdate(job, (), no_worker)
        return JobUpdate(job, store.events.events(job_id, after=after, limit=limit), no_worker)

    @in_store_thread
    def events(self, caller: Caller, job_id: str, *, after: int, limit: int) -> EventList:
        return EventList.of(
            self._seen_by(caller.sees).events.events(job_id, after=after, limit=limit + 1), limit
        )

    @in_store_thread
    def metrics(self, caller: Caller, job_id: str, *, after: int, limit: int) -> MetricList:
        return MetricList.of(
            self._seen_by(caller.sees).events.metrics(job_id, after=after, limit=limit + 1), limit
        )

    async def curves(
        self,
        caller: Caller,
        job_id: str,
        *,
        names: Collection[str],
        points: int,
        from_step: int,
        to_step: int,
    ) -> Curves:
        """A job's curves. Equal requests share a reading, and no two readings run side by side.

        A long job's takes the interpreter for a quarter of a second, which requests for the model need meanwhile.
        """

        events = self._seen_by(caller.sees).events

        def page(start: int) -> MetricTexts | None:
            return events.metric_texts(job_id, from_step=max(from_step, start), to_step=to_step)

        def read() -> Curves:
            return Curves(job=job_id, curves=curves_of(page, names, points))

        async def read_in_turn() -> Curves:
            async with self._curves_turn:
                return await self._threads.run(read)

        asked = caller.sees, job_id, tuple(names), points, from_step, to_step
        return await self._curves.run(asked, read_in_turn, f"curves {job_id}")

    @in_store_thread
    def checkpoints(self, caller: Caller, job_id: str) -> CheckpointList:
        store = self._seen_by(caller.sees)
        folder = inside(self._jobs_dir, self._jobs_dir / store.jobs.get(job_id).id)
        found = list(checkpoints_of(folder))
        data = [
            CheckpointInfo(
                step=step,
                created_at=written_at,
                size_bytes=size_bytes,
                newest=step == found[-1][0],
                metrics=_point(store.events.latest_metrics(job_id, to_step=step)),
            )
            for step, written_at, size_bytes in found
        ]
        return CheckpointList(data=data)

    @in_store_thread
    def workers(self, caller: Caller) -> WorkerList:
        """Who takes jobs: every worker of the last day."""
        found = self._seen_by(caller.sees).workers.list()
        return WorkerList(data=[WorkerInfo.model_validate(worker) for worker in found])

    @in_store_thread
    def cancel(self, caller: Caller, job_id: str) -> JobInfo:
        store = self._seen_by(caller.sees)
        return _info(store, store.jobs.request_cancel(job_id))

    @in_store_thread
    def pause(self, caller: Caller, job_id: str) -> JobInfo:
        store = self._seen_by(caller.sees)
        return _info(store, store.jobs.request_pause(job_id))

    @in_store_thread
    def resume(self, caller: Caller, job_id: str) -> JobInfo:
        store = self._seen_by(caller.sees)
        return self._woken(store, store.jobs.request_resume(job_id))

    @in_store_thread
    def retry(self, caller: Caller, job_id: str) -> JobInfo:
        """Raises InputsGone, Forbidden, Overloaded, DiskReserve too."""
        store = self._seen_by(caller.sees)
        job = store.jobs.get(job_id)
        config = job.config or {}
        # The job may have been cancelled so that the alias would not move.
        self._validator.check_promotion(caller, config.get("promote", "never"), config.get("alias", DEFAULT))
        if (job.status, Action.RETRY) in TRANSITIONS:
            self._validator.check_room(caller)
        return self._woken(store, store.jobs.request_retry(job_id))

    @in_store_thread
    def delete(self, caller: Caller, job_id: str) -> JobInfo:
        """Remove the files of a job that has ended, and keep its record. Raises JobStateConflict, FilesOutside."""
        store = self._seen_by(caller.sees)
        return _info(store, remove_job_files(store, self._jobs_dir, job_id))

    @in_store_thread
    def report(self, caller: Caller, job_id: str) -> Path:
        """The path of a job's report. Raises NotFound if there is none, and FilesOutside."""
        job = self._seen_by(caller.sees).jobs.get(job_id)
        path = report_of(job)
        file = None if path is None else job_file(self._jobs_dir, job.id, self._data_dir / path)
        if file is None or not file.is_file():
            raise NoReport(
                "This job has no report. A job has one once it has succeeded, until its files are deleted."
            )
        return file

    @in_store_thread
    def log(self, caller: Caller, job_id: str) -> BinaryIO:
        """The log of a fine-tuning job, from its newest attempt or else from its version. Raises NotFound."""
        store = self._seen_by(caller.sees)
        job = store.jobs.get(job_id)
        attempts = attempts_in(inside(self._jobs_dir, self._jobs_dir / job.id))
        logs = [attempt / "run" / LOG_FILE for attempt in reversed(attempts)]
        if job.result_version is not None:
            folder = store.versions.get(job.result_version).folder
            logs += [] if folder is None else [version_folder(self._data_dir, folder) / LOG_FILE]
        return open_log(logs)

    def _woken(self, store: Workspace, job: Job) -> JobInfo:
        self._waker.wake(job.kind, job.id)
        return _info(store, job)


def _info(store: Workspace, job: Job, **beside: Any) -> JobInfo:
    """The job, and whether it lacks a worker. These are two reads, so a worker may start between them."""
    living = store.workers.living_queues()
    return job_info(job, no_worker=needs_a_worker(job, living), **beside)


def _point(found: MetricPoint | None) -> MetricPointInfo | None:
    return None if found is None else MetricPointInfo.model_validate(found)


def needs_a_worker(job: Job | Row[Any], living: Mapping[JobKind, int]) -> bool:
    return job.status in _NEEDS_A_WORKER and job.devices > living.get(job.kind, 0)
