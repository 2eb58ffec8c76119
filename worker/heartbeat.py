"""The worker's heartbeat. Without a recent one, the service reports that no worker will take a job."""

import contextlib
import importlib.metadata
import os
import socket
import time

from app.errors import StoreUnavailable
from app.store import Store
from app.store.workers import HEARTBEAT_S, NewWorker
from worker.config import WorkerConfig
from worker.metrics import WorkerMetrics
from worker.periodic import Periodic


class Heartbeat:
    """Renews the worker's row in a thread, and removes it at the end."""

    def __init__(self, config: WorkerConfig, store: Store, owner: str, metrics: WorkerMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self._worker = NewWorker(
            id=owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            queue=config.kind,
            device=config.device,
            version=importlib.metadata.version("sds-clip"),
            started_at=time.time(),
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
        self._store.workers.beat(self._worker)
        self._metrics.beat()
