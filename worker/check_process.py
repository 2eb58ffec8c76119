"""The process that checks data sets one after another until none waits: `python -m sds_clip.worker.check_process`."""

import argparse
import contextlib
import logging
import os
import resource
import signal
import threading
import time

from sds_clip.app import logs
from sds_clip.app.data_folder import DataFolder, WrongDataFolder
from sds_clip.app.errors import LeaseLost, StoreUnavailable
from sds_clip.app.jobs.wakeups import WakeUps
from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.store import Store
from sds_clip.app.store.records import Dataset
from sds_clip.app.store.states import JobStatus
from sds_clip.models.machine import usable_cores
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.dataset_checks import check
from sds_clip.worker.identity import CHECK, owner_name
from sds_clip.worker.periodic import Periodic
from sds_clip.worker.protocol import Exit, Ticks, read_assignment

logger = logging.getLogger("sds_clip.worker.check_process")  # run as __main__

_TRY_AGAIN_S = 1.0
_MEMORY_BYTES = 4 * 2**30
# Far above the largest file of a data set, since it also holds for a database and a log that this process writes.
_MAX_FILE_BYTES = 64 * 2**30
_MEMORY_PER_THREAD_BYTES = 2 * 2**30  # decoding the largest image allowed takes 1 GiB


def main() -> None:
    """Check all waiting data sets, until asked to stop. Never returns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ticks", type=int)
    args = parser.parse_args()
    logs.configure()
    limit_resources()
    line = read_assignment()
    # Any other exit code than those of Exit counts as a death.
    code = 1
    try:
        config = WorkerConfig.loads(line)
        logs.configure(config.log_level, config.log_format)
        check_all(config, Ticks(args.ticks))
        code = Exit.ENDED
    except StoreUnavailable:
        code = Exit.STORE_AWAY
    except BaseException:
        logger.exception("The checker's process failed.")
    logging.shutdown()
    os._exit(code)


def limit_resources() -> None:
    """Limit this process's memory and the size of the files it writes, on top of the limits in its code.

    CPU time has no limit: a large data set may take hours, and the supervisor kills a check that stalls.
    """
    limits = {resource.RLIMIT_FSIZE: _MAX_FILE_BYTES}
    with contextlib.suppress(OSError):  # only Linux has /proc
        with open("/proc/self/statm", encoding="ascii") as file:
            mapped_bytes = int(file.read().split()[0]) * resource.getpagesize()
        # The limit is on address space: what is mapped already, which for torch with CUDA is many unused
        # gigabytes, comes on top.
        memory_bytes = mapped_bytes + _MEMORY_BYTES + usable_cores() * _MEMORY_PER_THREAD_BYTES
        limits[resource.RLIMIT_AS] = memory_bytes
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def check_all(config: WorkerConfig, ticks: Ticks) -> None:
    """Check every data set that no other process checks. Raises StoreUnavailable."""
    store = Store(config.database_url, timeout_s=config.store_timeout_s)
    wake_ups = WakeUps(config.broker_url)
    claim = CheckClaim(store, owner_name(os.getpid(), CHECK), config.check_ttl_s)
    # In a thread: the signal may interrupt a transaction of the main thread.
    signal.signal(signal.SIGTERM, lambda number, frame: threading.Thread(target=claim.stop).start())
    folder = DataFolder(store.database, config.data_dir)
    while folder.look() and (claimed := claim.take()) is not None:
        try:
            moved = check(
                config,
                store,
                claimed,
                progress=lambda done, total: ticks.tick(),
                concluding=claim.stop_renewing,
            )
        except LeaseLost as error:
            logger.warning("%s", error)
            continue
        except StoreUnavailable:
            claim.release()
            raise
        except WrongDataFolder:  # what is missing may be in the right one
            claim.release()
            continue
        for job in moved:
            if job.status is JobStatus.QUEUED and not wake_ups.publish(job.kind, job.id):
                break  # the others would wait as long for the broker; slots find jobs by themselves


class CheckClaim:
    """This process's claim on the data set it checks, renewed by a thread.

    If the claim is lost, the process ends, because its result would not be accepted.
    """

    def __init__(self, store: Store, owner: str, ttl_s: float) -> None:
        self._store = store
        self._owner = owner
        self._ttl_s = ttl_s
        self._lock = threading.RLock()  # `stop` releases
        self._claimed: Dataset | None = None
        self._is_renewed = False
        Periodic("renewal of the check", self._renew, ttl_s / 6, at_once=False).start()

    def take(self) -> Dataset | None:
        """Claim the next data set; None if none waits. Raises StoreUnavailable."""
        with self._lock:
            self._claimed = self._store.datasets.claim_check(self._owner, self._ttl_s, formats=FORMATS)
            self._is_renewed = self._claimed is not None
            return self._claimed

    def stop_renewing(self) -> None:
        """Stop renewing. Writing the result ends the claim; a later renewal would find it lost."""
        with self._lock:
            self._is_renewed = False

    def release(self) -> None:
        """Release the data set as if this check had not happened; retried for as long as the claim lasts."""
        with self._lock:
            self._is_renewed = False
            until = time.monotonic() + self._ttl_s
            while self._claimed is not None:
                try:
                    self._store.datasets.release_check(self._claimed)
                    return
                except StoreUnavailable:
                    if time.monotonic() > until:
                        logger.warning("The claim on %s cannot be released.", self._claimed.id)
                        return
                    time.sleep(_TRY_AGAIN_S)

    def stop(self) -> None:
        with self._lock:
            self.release()
            os._exit(Exit.RELEASED)

    def _renew(self) -> None:
        with self._lock:
            if self._claimed is None or not self._is_renewed:
                return
            if not self._store.datasets.renew_check(self._claimed, self._ttl_s):
                os._exit(Exit.LEASE_LOST)


if __name__ == "__main__":
    main()
