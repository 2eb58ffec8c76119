"""A slot claims jobs of one kind, one at a time, and runs a process for each.

What happens to a job whose process:
    ends by itself (`sds_clip.worker.protocol`)        the process has updated the row
    dies                                   the attempt failed; retried after a while, up to the job's attempts
    runs for longer than it may            asked to stop; once it has written a checkpoint, the store fails the job
    takes no step for stall_timeout_s      killed, then the same as if it died
    has not renewed its lease for long     killed and released on its behalf: an interruption
    has had its turn, and another waits    asked to stop, and released: no interruption
    is asked to stop, and does             released at a checkpoint by the process itself
    no longer has its data folder          asked to stop, and released
    is asked to stop, and does not         killed after stop_grace_s and released on its behalf
    hangs while another holds the job      killed
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sds_clip.app import tracing
from sds_clip.app.errors import FilesOutside, LeaseLost, StoreUnavailable, UnknownRecord
from sds_clip.app.store import Store
from sds_clip.app.store.claims import back_off_s
from sds_clip.app.store.records import Event, Job, JobError, Lease
from sds_clip.app.store.states import HELD, JobKind, JobStatus
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.errors import failure_of
from sds_clip.worker.fitness import Fitness
from sds_clip.worker.folders import JobFolder, Occupant, occupants
from sds_clip.worker.identity import identify, is_alive, kill, owner_name
from sds_clip.worker.metrics import SlotMetrics, WorkerMetrics, ending
from sds_clip.worker.periodic import Periodic
from sds_clip.worker.protocol import Assignment, Exit
from sds_clip.worker.supervised import COMMAND, ChildProcess, died

logger = logging.getLogger(__name__)

_ASKED = (JobStatus.PAUSING, JobStatus.CANCELLING)
_SPARE_EVERY_S = 60.0
_LOOK_S = 0.1  # how soon the end of a process, or a stop, is noticed


class Slot:
    """Supervises one device's jobs. A Celery task calls `run` for each.

    The slot also looks for jobs itself, since a message may be lost or the broker away. It sends a task for
    the job that is due. If the broker does not accept it, or no task has arrived by the next look, the job
    runs without one.
    """

    def __init__(
        self,
        config: WorkerConfig,
        store: Store,
        fitness: Fitness,
        publish: Callable[[JobKind, str], bool] = lambda kind, job_id: False,
        metrics: WorkerMetrics | None = None,
        *,
        command: Sequence[str] = COMMAND,
        owner: str | None = None,
    ) -> None:
        self._fitness = fitness
        self._config = config
        self._store = store
        self._publish = publish
        metrics = metrics or WorkerMetrics(config.data_dir, config.disk_reserve_bytes)
        self._metrics = metrics.slot(config.kind, lambda: fitness.out_because)
        self._command = [*command, "--kind", config.kind] if config.keep_warm else command
        self.owner = owner or owner_name(os.getpid(), config.queue)
        self._at_work = threading.Lock()
        self._sent: tuple[str, int] | None = None
        """Job and fence of the last task that the broker accepted, until a job ends here."""
        self._spare: ChildProcess | None = None
        """The warm process. Only the thread that holds `_at_work` replaces it."""
        self._no_spare_before = 0.0
        # Not at once: messages that wait in the queue come as soon as Celery is connected.
        self._looking = Periodic(
            f"slot-{config.queue}", self._look_for_jobs, config.idle_tick_s, at_once=False, daemon=False
        )
        self._stopping = self._looking.stopping

    def start(self) -> None:
        """Start looking for jobs."""
        self._warm_up()
        self._looking.start()

    def run(self, job_id: str, name: Callable[[str], None] = lambda job_id: None) -> str:
        """Claim the job whose turn it is, and supervise its process until it ends. `name` is told which one it is.

        Returns its JobStatus, or why none ran. The message says only that there is work: it may be repeated or late,
        and many may wait that came before those of other owners. `job_id` is the job for which it was sent.

        If the slot already runs a job that it found without a task, or may take none, it sends the message back to
        the queue. It then blocks until that job ends, or it may take one, so that Celery gives this worker no further
        message that an idle worker could take.
        """
        if not self._fitness.may_claim() and not self._stopping.is_set():
            self._publish(self._config.kind, job_id)  # for another worker
            while not self._stopping.wait(self._config.watch_every_s) and not self._fitness.may_claim():
                pass
        wait_s = 0.0
        while not self._at_work.acquire(timeout=wait_s):
            # The broker may still be away, as it was when the job began without a task. It then accepts nothing.
            wait_s = -1 if self._publish(self._config.kind, job_id) else self._config.idle_tick_s
        return self._run(job_id, name)

    def stop(self) -> None:
        """Take no more jobs, and stop the current one at a checkpoint. Returns at once."""
        self._looking.stop()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the slot has stopped, and end its warm process; returns whether it has stopped."""
        if not self._looking.join(timeout_s):
            return False
        with self._at_work:
            self._drop_spare()
        return True

    def _look_for_jobs(self) -> None:
        self._replace_spare()
        while self._fitness.may_claim() and self._look() and not self._stopping.is_set():
            pass

    def _look(self) -> bool:
        """Handle the job that is due first; returns whether it ran here, without a task.

        A busy slot sends a task only once, or messages would pile up until a worker is idle.
        """
        job = self._store.leases.next_due(
            self._config.kind, self._config.share_weights, len(self._config.devices)
        )
        if job is None:
            return False
        if self._sent != (job.id, job.fence) and self._publish(job.kind, job.id):
            self._sent = job.id, job.fence
            return False
        if not self._at_work.acquire(blocking=False):
            return False
        return isinstance(self._run(job.id, _runs_without_a_task), JobStatus)

    def _run(self, job_id: str, name: Callable[[str], None]) -> str:
        """As `run`; the caller holds `_at_work`, and it is released here."""
        try:
            if self._stopping.is_set():
                self._publish(self._config.kind, job_id)  # for another worker
                return "not taken"
            if not self._fitness.may_claim():
                return "not taken, because this worker takes no jobs at present"
            return self._claim_and_supervise(name) or "nothing to do"
        except StoreUnavailable:  # the store logs it
            return "the database does not answer"
        finally:
            self._sent = None
            self._at_work.release()

    def _claim_and_supervise(self, name: Callable[[str], None]) -> JobStatus | None:
        """Returns the job's status afterwards; None if no job could be claimed, or it has been removed since."""
        job = self._store.leases.claim(
            self._config.kind,
            self.owner,
            self._config.lease_ttl_s,
            weights=self._config.share_weights,
            devices=len(self._config.devices),
            retry_base_s=self._config.retry_base_s,
        )
        if job is None:
            return None
        try:
            name(job.id)
        except Exception:  # that of a broker, and the job is claimed
            logger.exception("Celery's tools cannot be told that job %s runs.", job.id)
        began = time.monotonic()
        self._metrics.begin()
        try:
            with tracing.span(
                "attempt", self._submitted_in(job), job=job.id, job_kind=job.kind, attempt=job.attempt
            ):
                self._supervise(job)
        finally:
            transitions, took_s = self._transitions(job), time.monotonic() - began
            self._metrics.end(transitions, job.fence, took_s)
            self._fitness.note(job, *ending(transitions, job.fence), took_s)
        self._warm_up()
        try:
            left = self._store.jobs.get(job.id)
        except UnknownRecord:
            return None
        if left.status is JobStatus.QUEUED and (self._stopping.is_set() or left.turn_over_at is not None):
            self._publish(job.kind, job.id)  # for another worker, or for this one's next turn
        return left.status

    def _submitted_in(self, job: Job) -> tracing.Carrier:
        """The span of the request that submitted the job. Empty if there was none."""
        if not tracing.is_on():
            return {}
        try:
            first, *_ = self._store.events.events(job.id, limit=1)
        except (StoreUnavailable, UnknownRecord):
            return {}
        carrier: tracing.Carrier = (first.data or {}).get("trace", {})
        return carrier

    def _transitions(self, job: Job) -> Sequence[Event]:
        try:
            return self._store.events.transitions(job.id)
        except (StoreUnavailable, UnknownRecord):
            return ()

    def _warm_up(self) -> None:
        """Start a warm process. Without one, a job starts its process itself."""
        if not self._config.keep_warm or self._stopping.is_set():
            return
        try:
            self._spare = ChildProcess(self._command)
        except OSError as error:
            logger.warning("A process could not be started ahead of the next job: %s.", error)

    def _replace_spare(self) -> None:
        """Start a new warm process if the last one has died, unless the slot is busy.

        One that dies each time, out of memory for example, is started again at most once a minute.
        """
        now = time.monotonic()
        if now < self._no_spare_before or not self._at_work.acquire(blocking=False):
            return
        try:
            if self._spare is None or self._spare.wait(0) is not None:
                self._no_spare_before = now + _SPARE_EVERY_S
                self._drop_spare()
                self._warm_up()
        finally:
            self._at_work.release()

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()

    def _take_process(self) -> ChildProcess:
        """Return the warm process if it lives, else a new one."""
        if self._spare is None or self._spare.wait(0) is not None:
            self._drop_spare()
            return ChildProcess(self._command)
        spare, self._spare = self._spare, None
        return spare

    def _supervise(self, job: Job) -> None:
        logger.info("Starting job %s: attempt %d, fence %d.", job.id, job.attempt, job.fence)
        try:
            folder = JobFolder(self._config.jobs_dir, Lease.of(job))
        except FilesOutside as error:
            self._store.leases.fail(Lease.of(job), failure_of(error).error)
            return
        child = self._take_process()
        try:
            # Before it has the job: if this supervisor dies, the next one must find the process to end it.
            self._write_down(child, folder)
            child.assign(Assignment(self._config, Lease.of(job), tracing.carrier()).dumps())
            end = _Watch(
                self._config, self._store, child, job, self._stopping, self._metrics, self._fitness
            ).until_end()
        finally:
            child.close()
        folder.vacate()
        # Only now, as the process is gone: from here on another worker may take the job.
        self._settle(job, end, child.done)

    def _write_down(self, child: ChildProcess, folder: JobFolder) -> None:
        process, supervisor = child.identify(), identify(os.getpid())
        if process is None or supervisor is None:
            return
        try:
            folder.occupy(Occupant(process, supervisor))
        except OSError as error:  # the job will fail on the folder too, and records why
            logger.warning("The folder %s cannot be written: %s.", folder.path, error.strerror)

    def _settle(self, job: Job, end: "_End", done: int) -> None:
        """Record the end of a job whose process could not do so itself."""
        lease = Lease.of(job)
        try:
            if end.killed_because is not None and end.code == Exit.RELEASED:
                self._store.leases.release(lease, f"Its process was killed: {end.killed_because}.")
            elif (how := end.killed_because or died(end.code)) is not None:
                logger.error("The process of job %s ended unexpectedly: %s.", job.id, how)
                error = JobError(
                    "process_died", f"The job's process ended unexpectedly: {how}.", retryable=True
                )
                retry_in_s = back_off_s(self._config.retry_base_s, job.attempt)
                self._store.leases.fail(lease, error, retry_in_s=retry_in_s, done=done)
        except LeaseLost:  # the process has recorded the end already
            pass
        except StoreUnavailable:  # the lease expires by itself
            logger.warning("The end of job %s could not be recorded, so its lease will expire.", job.id)


def _runs_without_a_task(job_id: str) -> None:
    logger.info("Job %s runs without a task, because the broker has not delivered one.", job_id)


@dataclass(frozen=True)
class _End:
    """How a process ended. For a killed process, `code` says what the kill means: released, failed or lease lost."""

    code: int
    killed_because: str | None = None


@dataclass
class _Watch:
    """Watches one process until it ends: asks it to stop when it should, and kills it when it hangs."""

    config: WorkerConfig
    store: Store
    child: ChildProcess
    job: Job
    stopping: threading.Event
    metrics: SlotMetrics
    fitness: Fitness
    asked_at: float | None = None
    lapsed_at: float | None = None
    next_row_at: float = float("-inf")
    next_turn_at: float = float("inf")

    def __post_init__(self) -> None:
        self.may_run_until = time.monotonic() + self.job.max_run_time_s - self.job.run_time_s

    def until_end(self) -> _End:
        while (code := self.child.wait(_LOOK_S)) is None:
            if (end := self._look(time.monotonic())) is not None:
                self.child.kill()
                return end
        # The process died of SIGTERM itself: its handler was not installed yet.
        if self.asked_at is not None and code == -signal.SIGTERM:
            return _End(Exit.RELEASED, "it was asked to stop before it had started")
        return _End(code)

    def _look(self, now: float) -> _End | None:
        """Returns the end if the process must be killed now."""
        if self.stopping.is_set() or now > self.may_run_until or not self.fitness.has_its_folder:
            self._ask_to_stop(now)
        if now >= self.next_row_at:
            self.next_row_at = now + self.config.watch_every_s
            if (end := self._look_at_row(now)) is not None:
                return end
        if self.asked_at is not None and now - self.asked_at > self.config.stop_grace_s:
            return _End(Exit.RELEASED, "it did not stop in time")
        if self.child.stalled_s() > self.config.stall_timeout_s:
            return _End(1, f"it took no step for {self.config.stall_timeout_s:g} s")
        return None

    def _look_at_row(self, now: float) -> _End | None:
        if not self.child.has_begun:
            self._renew()
        row = self._row()
        # Without the row nothing is known about the lease, so the time since it expired is counted anew.
        if row is None:
            self.lapsed_at = None
            return None
        if row.fence != self.job.fence:  # the process hangs, or it would have noticed
            return _End(Exit.LEASE_LOST)
        if row.lease_until is not None:
            self.metrics.watch(self.child.pid, row.lease_until, self.child.device_bytes)
        self.lapsed_at = (self.lapsed_at or now) if self._has_lapsed(row) else None
        if self.lapsed_at is not None and now - self.lapsed_at > self.config.lease_ttl_s:
            return _End(Exit.RELEASED, "it did not renew its lease")
        if row.status in _ASKED or self._is_turn_over(row):
            self._ask_to_stop(now)
        return None

    def _is_turn_over(self, row: Job) -> bool:
        """Whether the job has had its turn, and another owner's is next.

        A turn begins when the job has come further than ever before. What it repeats until then, such as its
        preparation, may take longer than a turn.
        """
        now = time.monotonic()  # after the row was read, which may have taken long
        if row.furthest_step > self.job.furthest_step:
            self.next_turn_at = min(self.next_turn_at, now + (self.config.max_turn_s or float("inf")))
        if now < self.next_turn_at or self.asked_at is not None:
            return False
        self.next_turn_at = now + self.config.idle_tick_s
        with contextlib.suppress(LeaseLost, StoreUnavailable):
            return self.store.leases.end_turn(
                Lease.of(self.job), self.config.share_weights, len(self.config.devices)
            )
        return False

    def _ask_to_stop(self, now: float) -> None:
        if self.asked_at is None:
            self.child.ask_to_stop()
            self.asked_at = now

    def _renew(self) -> None:
        """Renew on behalf of the process while it starts, which can outlast a lease on a busy machine."""
        with contextlib.suppress(StoreUnavailable):
            self.store.leases.renew(Lease.of(self.job), self.config.lease_ttl_s)

    def _has_lapsed(self, job: Job) -> bool:
        """Whether the lease has expired. A process that runs at all renews it long before."""
        return job.status in HELD and job.lease_until is not None and self.store.now() > job.lease_until

    def _row(self) -> Job | None:
        """The job's current record; None if it cannot be read."""
        try:
            return self.store.jobs.get(self.job.id)
        except (StoreUnavailable, UnknownRecord):
            return None


def end_orphans(config: WorkerConfig) -> None:
    """Kill job processes whose supervisor is dead. One that hangs or is stopped does not see its pipe close.

    Pid, start time and namespace must match, so no other process is killed. The job is taken over once its
    lease has expired.
    """
    me = identify(os.getpid())
    for folder, occupant in occupants(config.jobs_dir):
        if me is None or occupant.process.space != me.space or is_alive(occupant.supervisor):
            continue
        # Before its note goes: without the note, nobody would find a process that still runs.
        if kill(occupant.process):
            logger.warning(
                "Process %d, which a crashed worker left running, was killed.", occupant.process.pid
            )
        folder.vacate()
