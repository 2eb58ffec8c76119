"""What job code can use: its record, folder, reporter and stop flag."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn, TypeVar

from sds_clip.app.data_folder import DataFolder
from sds_clip.app.disk import check_reserve
from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, Lease, Move, NewVersion
from sds_clip.app.tracing import Stages
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.errors import Stopped
from sds_clip.worker.folders import JobFolder
from sds_clip.worker.protocol import Ticks
from sds_clip.worker.reporter import Reporter

_TRY_AGAIN_S = 1.0
R = TypeVar("R")


@dataclass
class StopFlag:
    """Set once, from a signal handler or a thread."""

    reason: str | None = None

    def set(self, reason: str) -> None:
        self.reason = self.reason or reason


@dataclass
class JobContext:
    """One attempt at a job, in the job's own process."""

    config: WorkerConfig
    store: Store
    job: Job
    folder: JobFolder
    reporter: Reporter
    ticks: Ticks
    stopping: StopFlag = field(default_factory=StopFlag)
    lease_left_s: Callable[[], float] = lambda: float("inf")
    stop_renewing: Callable[[], None] = lambda: None
    """Called when the job has ended, so that its lease is no longer renewed."""
    save: Callable[[], object] = lambda: None
    """Saves what a checkpoint does not have yet, if anything. Any thread may call it."""
    stages: Stages = field(default_factory=Stages)
    done: int = 0
    """Steps done over all stages. Every attempt that gets equally far has the same number."""
    _before: int = 0
    _counted: str = ""
    _stage: str = "starting"
    _step: int = 0
    _steps: int | None = None

    @property
    def lease(self) -> Lease:
        return Lease.of(self.job)

    def stage(self, name: str, done: int = 0, total: int | None = None) -> None:
        """Report the current stage, and how much of it is done if it has a `total`. That counts for no steps.

        Raises Stopped if the job was asked to stop.
        """
        self.check()
        self._stage = name
        self.stages.enter(name)
        step, steps = (self._step, self._steps) if total is None else (done, total)
        self.reporter.progress(name, step, steps, done=self.done)

    def advance(
        self,
        step: int,
        steps: int | None = None,
        estimated_finish: float | None = None,
        *,
        stage: str | None = None,
    ) -> None:
        """Report progress within the stage, or within a new one."""
        self._stage, self._step, self._steps = stage or self._stage, step, steps
        self.stages.enter(self._stage)
        self.count(self._stage, step, estimated_finish)

    def count(self, what: str, done: int, estimated_finish: float | None = None) -> None:
        """Count steps done of `what`. A step beyond all earlier attempts resets the job's attempt counter."""
        if what != self._counted:
            self._before, self._counted = self.done, what
        self.done = self._before + done
        self.ticks.tick(self.done)
        self.reporter.progress(self._stage, self._step, self._steps, estimated_finish, self.done)

    def should_stop(self) -> bool:
        return self.stopping.reason is not None

    def check(self) -> None:
        """Report a step of work that has no checkpoint. Raises Stopped if the job was asked to stop."""
        self.ticks.tick(self.done)
        if self.should_stop():
            raise Stopped(self.stopping.reason)

    @cached_property
    def _data_folder(self) -> DataFolder:
        return DataFolder(self.store.database, self.config.data_dir)

    def check_data_folder(self) -> None:
        """Raises Stopped if the data folder is not the database's, StoreUnavailable."""
        if not self._data_folder.look():
            raise Stopped(self._data_folder.trouble)

    def check_disk(self, wanted_bytes: int = 0) -> None:
        """Check that the disk keeps its reserve after `wanted_bytes` more. Raises DiskReserve."""
        check_reserve(self.config.data_dir, self.config.disk_reserve_bytes, wanted_bytes)

    def succeed(
        self,
        *,
        version: NewVersion | None = None,
        result: Mapping[str, Any] | None = None,
        promotion: Move | None = None,
    ) -> Job:
        """End the job with its results. Raises what `end` does, and what `sds_clip.app.store.leases` does."""
        files = None if version is None or version.folder is None else self.config.data_dir / version.folder
        return self.end(
            lambda: self.store.leases.succeed(
                self.lease, version=version, files=files, result=result, promotion=promotion
            )
        )

    def end(self, write: Callable[[], R]) -> R:
        """End the job in the database. It is tried again while that is away and the lease lasts.

        Raises: LeaseLost, StoreUnavailable; Stopped if the data folder is not the database's, so that the files would
        be lost.
        """
        while True:
            try:
                if not self.reporter.flush():  # metrics cannot be written after the job has ended
                    raise StoreUnavailable
                self.check_data_folder()
                ended = write()
            except StoreUnavailable:
                # One more try must fit into what is left of the lease.
                if self.lease_left_s() < 2 * _TRY_AGAIN_S:
                    raise
                time.sleep(_TRY_AGAIN_S)
            else:
                self.stop_renewing()
                return ended

    def stop(self) -> NoReturn:
        """Stop after a checkpoint was written. Raises Stopped."""
        raise Stopped(self.stopping.reason)


def limit(config: WorkerConfig, device: str) -> None:
    """Apply the slot's share of a device to this process."""
    if not config.threads and config.gpu_memory_share is None:
        return
    from sds_clip.models.clip.precision import limit_memory, use_threads

    if config.threads:
        use_threads(config.threads)
    if config.gpu_memory_share is not None:
        limit_memory(device, config.gpu_memory_share)
