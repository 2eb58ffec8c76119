"""The memory budget that all images being decoded share (docs/decisions/0022-decode-budget.md)."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator


class DecodeBudget:
    """Bytes of memory, granted to threads in order of arrival.

    A thread waits for its `turn`, finds out how much its image needs, takes that amount, and ends its turn. A
    large image therefore waits only for the images before it, and small images behind it cannot starve it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for all earlier threads, and make later ones wait until the block ends."""
        mine = object()
        with self._changed:
            self._line.append(mine)
            self._changed.wait_for(lambda: self._line[0] is mine)
        try:
            yield
        finally:
            with self._changed:
                self._line.popleft()
                self._changed.notify_all()

    def take(self, size_bytes: int, given_up: Callable[[], bool]) -> bool:
        """Wait until `size_bytes` are free and take them. Return False if the caller gave up first.

        `size_bytes` must not exceed `max_bytes`, or the call would wait forever.
        """
        with self._changed:
            self._changed.wait_for(lambda: given_up() or self.used_bytes + size_bytes <= self.max_bytes)
            if given_up():
                return False
            self.used_bytes += size_bytes
            return True

    def give_back(self, size_bytes: int) -> None:
        with self._changed:
            self.used_bytes -= size_bytes
            self._changed.notify_all()

    def wake(self) -> None:
        """Make waiting threads check again whether their caller gave up."""
        with self._changed:
            self._changed.notify_all()
