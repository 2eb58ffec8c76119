"""The process that checks data sets, one after another, until none waits: `python -m worker.check_process`."""

import argparse
import logging
import os
import resource
import signal
import sys
import threading
import time

from app import logs
from app.datasets.limits import ArchiveLimits
from app.jobs.wakeups import WakeUps
from app.store import Store
from app.store.errors import LeaseLost, StoreUnavailable
from app.store.records import Dataset
from app.store.states import JobStatus
from models.machine import usable_cores
from worker.config import WorkerConfig
from worker.dataset_checks import check
from worker.identity import CHECK, owner_name
from worker.protocol import Assignment, Exit, Ticks, end_with

logger = logging.getLogger(__name__)

_TRY_AGAIN_S = 1.0
_MEMORY_BYTES = 4 * 2**30
_MEMORY_PER_THREAD_BYTES = 2 * 2**30  # decoding the largest image allowed takes 1 GiB


def main() -> None:
    """Check what waits, until told to stop; never returns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ticks", type=int)
    args = parser.parse_args()
    logs.configure()
    limit_resources()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        os._exit(Exit.ORPHANED)
    end_with(sys.stdin.buffer)
    code = 1
    try:
        check_all(Assignment.loads(line).config, Ticks(args.ticks))
        code = Exit.ENDED
    except StoreUnavailable:
        code = Exit.STORE_AWAY
    except BaseException:
        logger.exception("the checker's process failed")
    logging.shutdown()
    os._exit(code)


def limit_resources() -> None:
    """Set what this process may take of memory and of a file, beside the limits that its code keeps by itself.

    The time on a processor has no limit: hours are right for a large data set, and a check that stands still is ended.
    """
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped_bytes = int(file.read().split()[0]) * resource.getpagesize()
    # Above what is mapped already, which for torch with CUDA is many gigabytes that nobody uses.
    memory_bytes = mapped_bytes + _MEMORY_BYTES + usable_cores() * _MEMORY_PER_THREAD_BYTES
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, ArchiveLimits().max_file_bytes),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def check_all(config: WorkerConfig, ticks: Ticks) -> None:
    """Check every data set that nobody is checking. Raises StoreUnavailable."""
    store = Store(config.database_url, timeout_s=config.store_timeout_s)
    wake_ups = WakeUps(config.broker_url)
    claim = Claim(store, owner_name(os.getpid(), CHECK), config.check_ttl_s)
    # In a thread: what this interrupts may be in the middle of a transaction.
    signal.signal(signal.SIGTERM, lambda number, frame: threading.Thread(target=claim.stop).start())
    while (claimed := claim.take()) is not None:
        try:
            moved = check(
                config, store, claimed, progress=lambda done, total: ticks.tick(), concluding=claim.let_go
            )
        except LeaseLost as error:
            logger.warning("%s", error)
            continue
        except StoreUnavailable:
            claim.give_back()
            raise
        for job in moved:
            if job.status is JobStatus.QUEUED and not wake_ups.publish(job.kind, job.id):
                break  # each of the others would wait as long for the broker; slots look by themselves


class Claim:
    """This process's claim on the data set that it is checking, renewed by a thread.

    A process that has lost it ends, since its result would not be taken.
    """

    def __init__(self, store: Store, owner: str, ttl_s: float) -> None:
        self._store = store
        self._owner = owner
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._claimed: Dataset | None = None
        self._is_renewed = False
        threading.Thread(target=self._renew, name="renew-check", daemon=True).start()

    def take(self) -> Dataset | None:
        """Claim the next data set; None where none waits. Raises StoreUnavailable."""
        with self._lock:
            self._claimed = self._store.datasets.claim_check(self._owner, self._ttl_s)
            self._is_renewed = self._claimed is not None
            return self._claimed

    def let_go(self) -> None:
        """Renew it no more: its result is about to be written, after which it would seem lost."""
        with self._lock:
            self._is_renewed = False

    def give_back(self) -> None:
        """Leave the data set to another check as if this one had not been; tried for as long as the claim lasts."""
        with self._lock:
            self._give_back()

    def stop(self) -> None:
        """Give it back, and end the process."""
        with self._lock:
            self._give_back()
            os._exit(Exit.RELEASED)

    def _give_back(self) -> None:
        self._is_renewed = False
        until = time.monotonic() + self._ttl_s
        while self._claimed is not None:
            try:
                self._store.datasets.release_check(self._claimed)
                return
            except StoreUnavailable:
                if time.monotonic() > until:
                    logger.warning("the claim on %s cannot be given back", self._claimed.id)
                    return
                time.sleep(_TRY_AGAIN_S)

    def _renew(self) -> None:
        while True:
            time.sleep(self._ttl_s / 6)
            with self._lock:
                if self._claimed is None or not self._is_renewed:
                    continue
                try:
                    if not self._store.datasets.renew_check(self._claimed, self._ttl_s):
                        os._exit(Exit.LEASE_LOST)
                except StoreUnavailable:
                    logger.warning("the claim on %s cannot be renewed", self._claimed.id)


if __name__ == "__main__":
    main()
