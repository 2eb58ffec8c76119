"""The worker's heartbeat. Without a recent one, the service reports that no worker will take a job.

It also notices that a newer program has migrated the database, and that this one may not go on.
"""

import contextlib
import importlib.metadata
import logging
import os
import socket
from collections.abc import Callable

from sds_clip.app.errors import ConfigurationError, StoreUnavailable
from sds_clip.app.store import Store
from sds_clip.app.store.records import NewWorker
from sds_clip.app.store.workers import HEARTBEAT_S
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.fitness import Fitness
from sds_clip.worker.metrics import WorkerMetrics
from sds_clip.worker.periodic import Periodic

logger = logging.getLogger(__name__)


class Heartbeat:
    """Renews the worker's row in a thread, and removes it at the end. `end` ends a worker that is too old to go on."""

    def __init__(
        self,
        config: WorkerConfig,
        store: Store,
        owner: str,
        metrics: WorkerMetrics,
        end: Callable[[], None],
        fitness: Fitness,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._end = end
        self._fitness = fitness
        self._worker = NewWorker(
            id=owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            queue=config.kind,
            device=config.device,
            version=importlib.metadata.version("sds-clip"),
            started_at=store.now(),
        )
        self._beating = Periodic("heartbeat", self._beat, HEARTBEAT_S)

    def start(self) -> None:
        self._beating.start()

    def close(self) -> None:
        self._beating.stop()
        self._beating.join()
        with contextlib.suppress(StoreUnavailable):  # otherwise its row soon counts as dead
            self._store.workers.leave(self._worker.id)

    def _beat(self) -> None:
        try:
            self._store.check_program()
        except ConfigurationError as error:
            logger.error("The worker stops. %s", error)
            self._beating.stop()
            self._end()
            return
        skew_s = self._store.clock_skew_s()
        self._store.workers.beat(self._worker, clock_skew_s=skew_s, out_because=self._fitness.out_because)
        self._metrics.beat(skew_s)
