"""A slot: claims jobs of one kind, one after another, and runs a process for each.

What becomes of a job whose process:
    ends by itself (`worker.exits`)        its row says it already
    dies                                   the attempt has failed; again after a while, up to the job's attempts
    runs for longer than it may            asked to stop; the store fails the job at its checkpoint
    takes no step for stall_timeout_s      killed, then the same
    lets its lease lapse, and long after   killed, and released on its behalf: an interruption
    is to stop, and does                   released at a checkpoint by the process itself
    is to stop, and does not in time       killed, and released on its behalf
    hangs while another has taken the job  killed
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from app.crash import reach
from app.store import Store
from app.store.errors import LeaseLost, StoreUnavailable, UnknownRecord
from app.store.leases import back_off_s
from app.store.records import Job, JobError, Lease
from app.store.states import HELD, JobKind, JobStatus
from worker.config import WorkerConfig
from worker.exits import Exit
from worker.folders import JobFolder, Occupant, occupants
from worker.identity import identify, is_alive, kill, owner_name
from worker.job_process import Assignment
from worker.supervised import COMMAND, ChildProcess, died

logger = logging.getLogger(__name__)

_ASKED = (JobStatus.PAUSING, JobStatus.CANCELLING)
_LOOK_S = 0.1


class Slot:
    """Supervises one device's jobs in a thread of its own. `wake` may be called from anywhere, at any time."""

    def __init__(
        self,
        config: WorkerConfig,
        store: Store,
        publish: Callable[[JobKind], object] = lambda kind: None,
        *,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._config = config
        self._store = store
        self._publish = publish
        self._command = [*command, "--kind", config.kind] if config.keep_warm else command
        self.owner = owner_name(os.getpid(), config.queue)
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._idle = threading.Event()
        self._spare: ChildProcess | None = None
        self._thread = threading.Thread(target=self._run, name=f"slot-{config.queue}")

    def start(self) -> None:
        """End what a crashed predecessor has left, and begin to take jobs."""
        end_orphans(self._config)
        self._thread.start()

    def wake(self) -> None:
        """There may be a job. Returns at once; a slot that is at work looks when it is done."""
        self._idle.clear()
        self._woken.set()
        if self._stopping.is_set():  # nobody may be there to answer any more
            self._idle.set()

    def wait_until_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until a wake-up is answered: nothing was left to claim, or the slot has stopped."""
        return self._idle.wait(timeout_s)

    def stop(self) -> None:
        """Take no more jobs, and have the one at hand stopped at a checkpoint. Returns at once."""
        self._stopping.set()
        self._woken.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the slot has stopped; whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._woken.clear()
                self._drain()
                if not self._woken.is_set():
                    self._idle.set()
                self._woken.wait(self._config.idle_tick_s)
        finally:
            self._idle.set()
            if self._spare is not None:
                self._spare.close()

    def _drain(self) -> None:
        """Run jobs until there are none. Nothing that goes wrong with one ends the slot."""
        while not self._stopping.is_set():
            try:
                self._warm_up()
                job = self._store.work.claim(
                    self._config.kind,
                    self.owner,
                    self._config.lease_ttl_s,
                    retry_base_s=self._config.retry_base_s,
                )
                if job is None:
                    return
                reach("after-claim")
                self._supervise(job)
            except StoreUnavailable:  # it is logged where it is found out
                return
            except Exception:
                logger.exception("the slot failed; it goes on with the next job")
                return

    def _warm_up(self) -> None:
        if self._spare is not None and self._spare.wait(0) is not None:
            self._spare.close()
            self._spare = None
        if self._spare is None and self._config.keep_warm:
            self._spare = ChildProcess(self._command)

    def _supervise(self, job: Job) -> None:
        logger.info("job %s: attempt %d, fence %d", job.id, job.attempt, job.fence)
        child, self._spare = self._spare or ChildProcess(self._command), None
        folder = JobFolder(self._config.jobs_dir, Lease.of(job))
        try:
            self._write_down(child, folder)
            child.assign(Assignment(self._config, Lease.of(job)))
            code, reason = self._watch(child, job)
        finally:
            child.close()
        folder.vacate()
        self._settle(job, code, reason, child.done)

    def _write_down(self, child: ChildProcess, folder: JobFolder) -> None:
        process, supervisor = child.identify(), identify(os.getpid())
        if process is None or supervisor is None:
            return
        try:
            folder.occupy(Occupant(process, supervisor))
        except OSError as error:  # the job finds out, and has a reason for its row
            logger.warning("%s cannot be written: %s", folder.path, error.strerror)

    def _watch(self, child: ChildProcess, job: Job) -> tuple[int, str | None]:
        """Its exit code, and why it was killed where it was."""
        looked_at = asked_at = lapsed_at = None
        ends_at = time.monotonic() + job.max_run_time_s - job.run_time_s
        while True:
            code = child.wait(_LOOK_S)
            if asked_at is not None and code == -signal.SIGTERM:
                return Exit.RELEASED, "it had hardly begun when it was told to stop"
            if code is not None:
                return code, None
            now = time.monotonic()
            if asked_at is None and (self._stopping.is_set() or now > ends_at):
                child.ask_to_stop()
                asked_at = now
            if looked_at is None or now - looked_at >= self._config.watch_every_s:
                looked_at = now
                if not child.has_begun:
                    self._renew(job)
                found = self._row(job)
                if (
                    found is not None and found.fence != job.fence
                ):  # its process hangs, or it would have found out
                    child.kill()
                    return Exit.LEASE_LOST, None
                lapsed_at = (lapsed_at or now) if found is not None and _has_lapsed(found) else None
                if lapsed_at is not None and now - lapsed_at > self._config.lease_ttl_s:
                    child.kill()
                    return Exit.RELEASED, "it did not renew its lease"
                if asked_at is None and found is not None and found.status in _ASKED:
                    child.ask_to_stop()
                    asked_at = now
            if asked_at is not None and now - asked_at > self._config.stop_grace_s:
                child.kill()
                return Exit.RELEASED, "it did not stop in time"
            if child.stalled_s() > self._config.stall_timeout_s:
                child.kill()
                return 1, f"it took no step for {self._config.stall_timeout_s:g} s"

    def _renew(self, job: Job) -> None:
        """Keep the lease while the process starts, which may take longer than a lease on a busy machine."""
        with contextlib.suppress(StoreUnavailable):
            self._store.work.renew(Lease.of(job), self._config.lease_ttl_s)

    def _row(self, job: Job) -> Job | None:
        """The job as it is now; None where that cannot be read."""
        try:
            return self._store.jobs.get(job.id)
        except (StoreUnavailable, UnknownRecord):
            return None

    def _settle(self, job: Job, code: int, killed: str | None, done: int) -> None:
        """Write the end of a job whose process could not."""
        lease = Lease.of(job)
        try:
            if killed is not None and code == Exit.RELEASED:
                self._store.work.release(lease, f"Its process was killed: {killed}.")
            elif (how := killed or died(code)) is not None:
                logger.error("job %s: its process died: %s", job.id, how)
                error = JobError("process_died", f"The job's process died: {how}.", retryable=True)
                retry_in_s = back_off_s(self._config.retry_base_s, job.attempt)
                self._store.work.fail(lease, error, retry_in_s=retry_in_s, done=done)
        except LeaseLost:  # its process had told the end already
            pass
        except StoreUnavailable:  # the lease ends by itself
            logger.warning("job %s: its end could not be written; its lease will end", job.id)
        if self._stopping.is_set():
            self._publish(self._config.kind)  # for whoever takes over


def _has_lapsed(job: Job) -> bool:
    """Whether the job's lease has ended, which its process renews long before as long as it runs at all."""
    return job.status in HELD and job.lease_until is not None and time.time() > job.lease_until


def end_orphans(config: WorkerConfig) -> None:
    """Kill processes of jobs whose supervisor is dead: one that hangs or is stopped does not see its pipe end.

    A process is known by its number, its start and its namespace, so nobody else's is killed; the job of one that
    is killed is taken over when its lease has ended.
    """
    me = identify(os.getpid())
    for folder, occupant in occupants(config.jobs_dir):
        if me is None or occupant.process.space != me.space or is_alive(occupant.supervisor):
            continue
        if kill(occupant.process):
            logger.warning("process %d of a crashed worker was ended", occupant.process.pid)
        folder.vacate()
