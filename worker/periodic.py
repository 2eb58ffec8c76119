"""A function that a thread calls again and again."""

import logging
import threading
from collections.abc import Callable

from sds_clip.app.errors import StoreUnavailable

logger = logging.getLogger(__name__)


class Periodic:
    """Calls `act` every `every_s` seconds in a thread of its own until it is stopped. No error ends it."""

    def __init__(
        self,
        name: str,
        act: Callable[[], object],
        every_s: float,
        *,
        at_once: bool = True,
        daemon: bool = True,
    ) -> None:
        self._name = name
        self._act = act
        self._every_s = every_s
        self._at_once = at_once
        self._thread = threading.Thread(target=self._run, name=name, daemon=daemon)
        self.stopping = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def call(self) -> None:
        """Make a call besides, in this thread. It raises nothing."""
        try:
            self._act()
        except StoreUnavailable:  # the store logs it
            pass
        except Exception:
            logger.exception(
                "The background task '%s' failed. It runs again in %g s.", self._name, self._every_s
            )

    def stop(self) -> None:
        """Make no further calls. It returns at once; a call that is running ends by itself."""
        self.stopping.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the thread has ended; returns whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if not self._at_once:
            self.stopping.wait(self._every_s)
        while not self.stopping.is_set():
            self.call()
            self.stopping.wait(self._every_s)
