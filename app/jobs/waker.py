"""Wakes workers from a thread of its own, so that no request waits for the broker."""

import logging
import threading
from collections import deque

from sds_clip.app.store.states import JobKind

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0
_MAX_WAITING = 1000


class Waker:
    """Publishes wake-ups. Without a broker it does nothing, and workers find jobs by polling.

    When the broker does not answer, all waiting wake-ups are dropped, because each of them would wait as
    long.
    """

    def __init__(self, broker_url: str | None) -> None:
        self._broker_url = broker_url
        self._waiting: deque[tuple[JobKind, str]] = deque(maxlen=_MAX_WAITING)
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="waker", daemon=True)

    def start(self) -> None:
        if self._broker_url is not None:
            self._thread.start()

    def wake(self, kind: JobKind, job_id: str) -> None:
        """Wake a worker for a committed job, or for a check that it is to submit. Thread-safe, and returns at once."""
        with self._news:
            self._waiting.append((kind, job_id))
            self._news.notify()

    def close(self) -> None:
        """Publish waiting wake-ups, for a few seconds at most, and stop."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        from sds_clip.app.jobs.wakeups import WakeUps  # imported here because importing Celery is slow

        assert self._broker_url is not None
        wakeups = WakeUps(self._broker_url)
        while (waiting := self._next()) is not None:
            try:
                is_published = wakeups.publish(*waiting)
            except Exception:
                logger.exception(
                    "The wake-up for job %s failed. A worker will find the job without it.", waiting[1]
                )
                continue
            if not is_published:
                with self._news:
                    self._waiting.clear()
        wakeups.close()

    def _next(self) -> tuple[JobKind, str] | None:
        """Wait for the next job to publish a wake-up for. Returns None when closing."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closing)
            return self._waiting.popleft() if self._waiting else None
