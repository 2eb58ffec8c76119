"""What nobody else sees to: wake-ups that were lost, jobs whose worker is gone, and files that are kept too long.

Several of them do no harm to each other: a wake-up more finds nothing to do, and the rest is decided by the store.
"""

import logging
import threading
import time
from collections.abc import Callable

from app.store import Store
from app.store.errors import StoreUnavailable
from app.store.leases import MAX_BACK_OFF_S
from app.store.states import JobKind
from worker.config import WorkerConfig
from worker.retention import Retention

logger = logging.getLogger(__name__)

_FORGET_AFTER_S = 3600.0


class Reaper:
    """Looks every `reap_every_s` seconds, in a thread."""

    def __init__(
        self,
        config: WorkerConfig,
        store: Store,
        publish: Callable[[JobKind], object],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._store = store
        self._publish = publish
        self._clock = clock
        self._retention = Retention(config, store)
        self._next: dict[str, tuple[float, float]] = {}
        """By job: when to wake for it again, and how long to wait after that."""
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
        now = self._clock()
        stale = self._store.reaper.stale(self._config.reap_every_s)
        due = {job.kind for job in stale if self._is_due(job.id, now)}
        for kind in sorted(due):
            self._publish(kind)
        self._next = {name: at for name, at in self._next.items() if at[0] > now - _FORGET_AFTER_S}
        self._retention.look()

    def _is_due(self, job_id: str, now: float) -> bool:
        """Whether to wake somebody for a job; each time the wait for the next time doubles."""
        at, wait_s = self._next.get(job_id, (now, self._config.reap_every_s))
        if now < at:
            return False
        self._next[job_id] = now + wait_s, min(MAX_BACK_OFF_S, 2 * wait_s)
        return True

    def _run(self) -> None:
        while not self._stopping.wait(self._config.reap_every_s):
            try:
                self.look()
            except StoreUnavailable:  # it is logged where it is found out
                pass
            except Exception:
                logger.exception("the reaper failed; it looks again")
