"""Periodic cleanup: jobs whose worker is gone, and files that are kept too long.

Every worker does it; several do no harm to each other, since the store decides.
"""

import logging
import threading

from app.store import Store
from app.store.errors import StoreUnavailable
from worker.config import WorkerConfig
from worker.retention import Retention

logger = logging.getLogger(__name__)


class Reaper:
    """Looks every `reap_every_s` seconds, in a thread."""

    def __init__(self, config: WorkerConfig, store: Store) -> None:
        self._every_s = config.reap_every_s
        self._store = store
        self._retention = Retention(config, store)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Returns at once: what is under way is harmless."""
        self._stopping.set()

    def look(self) -> None:
        """Once. Raises StoreUnavailable."""
        for job in self._store.reaper.settle_abandoned():
            logger.info("job %s is %s: its worker is gone", job.id, job.status)
        self._retention.look()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self.look()
            except StoreUnavailable:  # it is logged where it is found out
                pass
            except Exception:
                logger.exception("the reaper failed; it looks again")
