"""Starts a process to check waiting data sets: decoding them may crash, so it happens outside the worker."""

import logging
import signal
import time

from sds_clip.app.store import Store
from sds_clip.app.store.records import DatasetStatus
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.fitness import Fitness
from sds_clip.worker.identity import CHECK, owner_name
from sds_clip.worker.periodic import Periodic
from sds_clip.worker.supervised import PYTHON, ChildProcess, died

logger = logging.getLogger(__name__)

COMMAND = (*PYTHON, "sds_clip.worker.check_process")
_LOOK_S = 0.2  # how often a running check's process is looked at, so a stop is noticed quickly


class Checker:
    """Starts a process when data sets wait.

    A data set seen before is left alone for one lease, since another worker may be checking it.
    """

    def __init__(self, config: WorkerConfig, store: Store, fitness: Fitness) -> None:
        self._config = config
        self._store = store
        self._fitness = fitness
        self._looking = Periodic("checker", self._look, config.idle_tick_s, daemon=False)
        self._seen: dict[str, float] = {}

    def start(self) -> None:
        self._looking.start()

    def stop(self) -> None:
        """Return at once. A running check is stopped, and another worker starts it again."""
        self._looking.stop()

    def join(self) -> None:
        self._looking.join()

    def _look(self) -> None:
        if self._fitness.has_its_folder and self._is_due():
            self._check_all()

    def _is_due(self) -> bool:
        """Whether a waiting data set is new here, or was last due longer ago than the lease of a check lasts."""
        waiting = self._store.datasets.list(status=DatasetStatus.VALIDATING, limit=100).items
        now = time.monotonic()
        seen = {dataset.id: self._seen.get(dataset.id) for dataset in waiting}
        due = [name for name, at in seen.items() if at is None or now - at > self._config.check_ttl_s]
        self._seen = {name: now if name in due or at is None else at for name, at in seen.items()}
        return bool(due)

    def _check_all(self) -> None:
        child = ChildProcess(COMMAND)
        try:
            child.assign(self._config.dumps())
            asked_at = None
            while (code := child.wait(_LOOK_S)) is None:
                now = time.monotonic()
                if asked_at is None and self._looking.stopping.is_set():
                    child.ask_to_stop()
                    asked_at = now
                is_deaf = asked_at is not None and now - asked_at > self._config.stop_grace_s
                if is_deaf or child.stalled_s() > self._config.stall_timeout_s:
                    child.kill()
                    code = -signal.SIGKILL
                    break
        finally:
            child.close()
        if (how := died(code)) is not None and asked_at is None:
            logger.error("The process that checks data sets ended unexpectedly: %s.", how)
            self._store.datasets.check_died(owner_name(child.pid, CHECK))
