"""The memory that all images being decoded may take together."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator


class DecodeBudget:
    """Bytes, granted to threads in the order in which they come.

    A thread takes its `turn`, finds out how much its image needs, takes that, and lets the next one have its
    turn. So a large image waits for those before it alone, and small ones behind it cannot keep it waiting.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for those who came before, and hold up those who come later."""
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
        """Wait until so many bytes are free and take them; False if the caller gave up before.

        `size_bytes` is at most `max_bytes`.
        """
        with self._changed:
            self._changed.wait_for(lambda: given_up() or self.used_bytes + size_bytes <= self.max_bytes)
            if given_up():
                return False
            self.used_bytes += size_bytes
            return True

    def give_back(self, size_bytes: int) -> None:
        """Return bytes that were taken."""
        with self._changed:
            self.used_bytes -= size_bytes
            self._changed.notify_all()

    def wake(self) -> None:
        """Have waiting threads ask again whether their caller gave up."""
        with self._changed:
            self._changed.notify_all()
