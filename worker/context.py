"""What a job's code can use: its record, folder, reporter, and the flag that asks it to stop."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from app.disk import check_reserve
from app.store import Store
from app.store.errors import StoreUnavailable
from app.store.records import Job, Lease, Move, NewVersion
from worker.config import WorkerConfig
from worker.errors import Stopped
from worker.folders import JobFolder
from worker.protocol import Ticks
from worker.reporter import Reporter

_TRY_AGAIN_S = 1.0


@dataclass
class StopFlag:
    """Set once, from a signal's handler or a thread."""

    reason: str | None = None

    def set(self, reason: str) -> None:
        """Ask to stop; the first reason is kept."""
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
    """Called when the job has ended, so that its lease is kept no longer."""
    done: int = 0
    """Steps done of all that was counted, the same for every attempt that comes as far."""
    _before: int = 0
    _counted: str = ""
    _stage: str = "starting"
    _step: int = 0
    _steps: int | None = None

    @property
    def lease(self) -> Lease:
        """The right to the job."""
        return Lease.of(self.job)

    def stage(self, name: str) -> None:
        """Say what is done now. Raises Stopped where that was asked for."""
        self.check()
        self._stage = name
        self.reporter.progress(name, self._step, self._steps, done=self.done)

    def advance(
        self,
        step: int,
        steps: int | None = None,
        estimated_finish: float | None = None,
        *,
        stage: str | None = None,
    ) -> None:
        """Say how far the stage is, or another one."""
        self._stage, self._step, self._steps = stage or self._stage, step, steps
        self.count(self._stage, step, estimated_finish)

    def count(self, what: str, done: int, estimated_finish: float | None = None) -> None:
        """So many steps of something are done; where no attempt has come as far, this renews the job's attempts."""
        if what != self._counted:
            self._before, self._counted = self.done, what
        self.done = self._before + done
        self.ticks.tick(self.done)
        self.reporter.progress(self._stage, self._step, self._steps, estimated_finish, self.done)

    def should_stop(self) -> bool:
        """Whether to come to a checkpoint and stop."""
        return self.stopping.reason is not None

    def check(self) -> None:
        """A step of something that has no checkpoint. Raises Stopped."""
        self.ticks.tick(self.done)
        if self.should_stop():
            raise Stopped(self.stopping.reason)

    def check_disk(self, wanted_bytes: int = 0) -> None:
        """Before so many bytes are written. Raises DiskReserve."""
        check_reserve(self.config.data_dir, self.config.disk_reserve_bytes, wanted_bytes)

    def succeed(
        self,
        *,
        version: NewVersion | None = None,
        result: Mapping[str, Any] | None = None,
        promotion: Move | None = None,
    ) -> Job:
        """End the job with what it made; asked again while the database is away and the lease lasts.

        Raises: AliasMoved, LeaseLost, UnusableRecord, VersionGone, StoreUnavailable.
        """
        files = None if version is None or version.folder is None else self.config.data_dir / version.folder
        while True:
            try:
                if not self.reporter.flush():  # nobody may write a job's metrics once it has ended
                    raise StoreUnavailable
                ended = self.store.leases.succeed(
                    self.lease, version=version, files=files, result=result, promotion=promotion
                )
            except StoreUnavailable:
                if self.lease_left_s() < 2 * _TRY_AGAIN_S:
                    raise
                time.sleep(_TRY_AGAIN_S)
            else:
                self.stop_renewing()
                return ended

    def stop(self) -> NoReturn:
        """A checkpoint was written. Raises Stopped."""
        raise Stopped(self.stopping.reason)
