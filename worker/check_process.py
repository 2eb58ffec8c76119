"""The process that checks data sets, one after another, until none waits: `python -m worker.check_process`."""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app import logs
from app.jobs.states import JobKind, JobStatus
from app.jobs.wakeups import WakeUps
from app.store import Store
from app.store.assets import Dataset
from app.store.errors import LeaseLost, StoreUnavailable
from worker.config import WorkerConfig
from worker.context import Ticks
from worker.dataset_checks import check
from worker.exits import Exit
from worker.job_process import Assignment, end_with

logger = logging.getLogger(__name__)


def main() -> None:
    """Check what waits; never returns."""
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
    while (claimed := store.datasets.claim_check(config.check_ttl_s)) is not None:
        with _renewed(store, claimed, config.check_ttl_s):
            try:
                moved = check(config, store, claimed, progress=lambda done, total: ticks.tick())
            except LeaseLost as error:
                logger.warning("%s", error)
                continue
        kinds: set[JobKind] = {job.kind for job in moved if job.status is JobStatus.QUEUED}
        for kind in sorted(kinds):
            wake_ups.publish(kind)


@contextmanager
def _renewed(store: Store, claimed: Dataset, ttl_s: float) -> Iterator[None]:
    """Go on holding the claim; a process that has lost it ends, since its result would not be taken."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(ttl_s / 6):
            try:
                if not store.datasets.renew_check(claimed, ttl_s) and not done.is_set():
                    os._exit(Exit.LEASE_LOST)
            except StoreUnavailable:
                logger.warning("the claim on %s cannot be renewed", claimed.id)

    thread = threading.Thread(target=renew, name="renew-check", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    main()
