"""The processes of the embedded run, from start to end.

    started    the service, and once that is there the workers
    ended      the workers, which let their jobs go at a checkpoint, then the service

The broker is started before and ended after all of them, and looked after like them.
"""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from sds_clip.up.address import Address
from sds_clip.up.child import Child
from sds_clip.up.restarts import Part, Restarts

logger = logging.getLogger(__name__)

LOOK_S = 0.2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class System:
    """Runs until the first SIGINT, SIGTERM or SIGHUP; the second ends what has not ended yet at once."""

    def __init__(
        self,
        service: Child,
        workers: Sequence[Child],
        address: Address,
        broker: Part | None,
        *,
        worker_grace_s: float,
        service_grace_s: float,
    ) -> None:
        self._service = service
        self._workers = workers
        self._address = address
        self._broker = broker
        self._worker_grace_s = worker_grace_s
        self._service_grace_s = service_grace_s
        self._stopping = threading.Event()
        self._hurrying = threading.Event()

    def run(self, on_ready: Callable[[], None]) -> int:
        """Start everything, look after it, and end it. The service's exit code where that did not come up, else 0."""
        with self._signals():
            try:
                self._service.start()
                if not self._wait_until_ready():
                    return 0 if self._stopping.is_set() else self._failure()
                for worker in self._workers:
                    worker.start()
                on_ready()
                self._look_after()
            finally:
                self._end()
        return 0

    def _wait_until_ready(self) -> bool:
        """False where the service has ended before, or all is to end."""
        while not self._stopping.wait(LOOK_S):
            if not self._service.is_running():
                return False
            if self._address.is_there():
                return True
        return False

    def _failure(self) -> int:
        """The exit code of a service that has ended by itself; 1 for a signal."""
        code = self._service.exit_code()
        return code if code is not None and code > 0 else 1

    def _look_after(self) -> None:
        now = time.monotonic()
        watched = [Restarts(child.name, child, now) for child in (self._service, *self._workers)]
        if self._broker is not None:
            watched.insert(0, Restarts("valkey", self._broker, now))
        while not self._stopping.wait(LOOK_S):
            for part in watched:
                part.look(time.monotonic())

    def _end(self) -> None:
        self._end_children(self._workers, self._worker_grace_s)
        self._end_children([self._service], self._service_grace_s)

    def _end_children(self, children: Sequence[Child], grace_s: float) -> None:
        for child in children:
            child.ask_to_stop()
        deadline = time.monotonic() + grace_s
        while any(child.is_running() for child in children) and time.monotonic() < deadline:
            if self._hurrying.wait(LOOK_S):
                break
        for child in children:
            if child.is_running():
                logger.warning("%s has not stopped; it is killed", child.name)
                child.kill()
            child.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def handle(number: int, frame: FrameType | None) -> None:
            (self._hurrying if self._stopping.is_set() else self._stopping).set()

        before = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
