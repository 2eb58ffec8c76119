"""A worker says that it lives, so that jobs can say that nobody will take them."""

import contextlib
import importlib.metadata
import logging
import os
import socket
import threading
import time

from app.store import Store
from app.store.errors import StoreUnavailable
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
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """The worker has stopped."""
        self._stopping.set()
        self._thread.join()
        with contextlib.suppress(StoreUnavailable):  # then it is soon taken for dead
            self._store.workers.leave(self._worker.id)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._store.workers.beat(self._worker)
            except StoreUnavailable:  # it is logged where it is found out
                pass
            except Exception:
                logger.exception("the heartbeat failed; it beats again")
            self._stopping.wait(HEARTBEAT_S)
