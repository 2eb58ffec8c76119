"""The process that checks data sets, one after another, until none waits: `python -m worker.check_process`."""

import argparse
import logging
import os
import signal
import sys
import threading
import time

from app import logs
from app.jobs.wakeups import WakeUps
from app.store import Store
from app.store.errors import LeaseLost, StoreUnavailable
from app.store.records import Dataset
from app.store.states import JobKind, JobStatus
from worker.config import WorkerConfig
from worker.context import Ticks
from worker.dataset_checks import check
from worker.exits import Exit
from worker.identity import CHECK, owner_name
from worker.job_process import Assignment, end_with

logger = logging.getLogger(__name__)

_TRY_AGAIN_S = 1.0


def main() -> None:
    """Check what waits, until told to stop; never returns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ticks", type=int)
    args = parser.parse_args()
    logs.configure()
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
        kinds: set[JobKind] = {job.kind for job in moved if job.status is JobStatus.QUEUED}
        for kind in sorted(kinds):
            wake_ups.publish(kind)


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
