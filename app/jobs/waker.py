"""Wakes workers in a thread of its own, so that no request waits for the broker."""

import logging
import threading

from app.store.states import JobKind

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0


class Waker:
    """Publishes wake-ups; without a broker it does nothing, and workers look by themselves.

    Wake-ups that wait while the broker is slow become one: it carries no job, and a worker that gets one takes
    whatever there is.
    """

    def __init__(self, broker_url: str | None) -> None:
        self._broker_url = broker_url
        self._kinds: set[JobKind] = set()
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="waker", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        if self._broker_url is not None:
            self._thread.start()

    def wake(self, kind: JobKind) -> None:
        """Wake a worker of a kind, from any thread, after the job's row is committed. Returns at once."""
        with self._news:
            self._kinds.add(kind)
            self._news.notify()

    def close(self) -> None:
        """Publish what waits, within seconds, and stop."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        from app.jobs.wakeups import WakeUps  # Celery takes a while to import

        assert self._broker_url is not None
        wakeups = WakeUps(self._broker_url)
        while (kinds := self._taken()) is not None:
            for kind in sorted(kinds):
                try:
                    wakeups.publish(kind)
                except Exception:
                    logger.exception("a wake-up for %s failed; the reaper sends another", kind)
        wakeups.close()

    def _taken(self) -> set[JobKind] | None:
        """The kinds to be woken, waited for; None at the end."""
        with self._news:
            self._news.wait_for(lambda: self._kinds or self._closing)
            kinds, self._kinds = self._kinds, set()
        return kinds or None
