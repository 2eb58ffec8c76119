"""Sends a job's progress, metrics and events in a thread, so that training never waits."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

from sds_clip.app.errors import LeaseLost, StoreUnavailable
from sds_clip.app.store import Store
from sds_clip.app.store.records import Lease, Level
from sds_clip.worker.periodic import Periodic

logger = logging.getLogger(__name__)

_MAX_EVENTS = 100  # kept while the database is away; the oldest are dropped
_POINTS_AT_ONCE = 500  # per transaction


class Reporter:
    """Sends the newest progress, and all metrics and events, at most every `every_s` seconds.

    Metrics of many steps go in one transaction. Newer progress replaces older; the last one is always sent.
    Whatever cannot be sent while the database is away is sent later.
    """

    def __init__(self, store: Store, lease: Lease, every_s: float) -> None:
        self._store = store
        self._lease = lease
        self._lock = threading.Lock()
        self._progress: Callable[[], None] | None = None
        self._points: dict[int, dict[str, float]] = {}
        self._newest: tuple[int, dict[str, float]] = -1, {}
        self._events: list[Callable[[], int]] = []
        self._sending = threading.Lock()
        self._sender = Periodic("reporter", self.flush, every_s)
        self.spent_s = 0.0  # spent on sending

    def start(self) -> None:
        self._sender.start()

    def close(self) -> None:
        """Send what is left, once. Nothing is sent afterwards."""
        self._sender.stop()
        self._sender.join()
        self.flush()

    def flush(self) -> bool:
        """Send everything now. Returns False if the database is away."""
        with self._sending:
            return self._send()

    def progress(
        self,
        stage: str,
        step: int,
        steps: int | None = None,
        estimated_finish: float | None = None,
        done: int | None = None,
    ) -> None:
        with self._lock:
            self._progress = partial(
                self._store.leases.progress,
                self._lease,
                stage=stage,
                step=step,
                steps=steps,
                estimated_finish=estimated_finish,
                done=done,
            )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step, merged per step, because the store replaces a step as a whole."""
        with self._lock:
            same = self._newest[1] if self._newest[0] == step else {}
            self._newest = step, same | dict(values)
            self._points[step] = self._newest[1]

    def event(
        self, message: str, *, level: Level = Level.INFO, data: Mapping[str, Any] | None = None
    ) -> None:
        told: Callable[[], int] = partial(
            self._store.leases.event, self._lease, message, level=level, data=data
        )
        with self._lock:
            self._events = [*self._events, told][-_MAX_EVENTS:]

    def _send(self) -> bool:
        with self._lock:
            progress, self._progress = self._progress, None
            points, self._points = self._points, {}
            events, self._events = self._events, []
        began = time.monotonic()
        try:
            while events:
                events[0]()
                events.pop(0)
            while points:
                batch = dict(islice(points.items(), _POINTS_AT_ONCE))
                self._store.leases.points(self._lease, batch)
                points = {step: values for step, values in points.items() if step not in batch}
            if progress is not None:
                progress()
        except StoreUnavailable:
            with self._lock:
                self._progress = self._progress or progress
                self._points = points | self._points
                self._events = [*events, *self._events][-_MAX_EVENTS:]
            return False
        except LeaseLost as error:  # the lease keeper ends the process
            logger.warning("%s", error)
        finally:
            self.spent_s += time.monotonic() - began
        return True
