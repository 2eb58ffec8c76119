"""The worker's heartbeat, from which a job can tell that no worker will take it."""

import contextlib
import importlib.metadata
import logging
import os
import socket
import threading
import time

from app.errors import StoreUnavailable
from app.store import Store
from app.store.workers import HEARTBEAT_S, NewWorker
from worker.config import WorkerConfig

logger = logging.getLogger(__name__)


class Heartbeat:
    """Renews the worker's row in a thread, and removes it at the end."""

    def __init__(self, config: WorkerConfig, store: Store, owner: str) -> None:
        self._store = store
        self._worker = NewWorker(
            id=owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            queue=config.kind,
            device=config.device,
            version=importlib.metadata.version("sds-clip"),
            started_at=time.time(),
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        with contextlib.suppress(StoreUnavailable):  # otherwise its row soon counts as dead
            self._store.workers.leave(self._worker.id)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._store.workers.beat(self._worker)
            except StoreUnavailable:  # the store logs it
                pass
            except Exception:
                logger.exception("the heartbeat failed; it beats again")
            self._stopping.wait(HEARTBEAT_S)
