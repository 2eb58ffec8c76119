"""A bounded number of things that go on at the same time; there is no queue for more."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Overloaded


class Places:
    """So many at once, touched by the event loop alone. `what` is their plural, for the message."""

    def __init__(self, count: int, what: str, *, retry_after_s: int) -> None:
        self._count = count
        self._what = what
        self._retry_after_s = retry_after_s
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a place for the time of the block. Raises Overloaded where there is none."""
        if self.taken >= self._count:
            raise Overloaded(
                f"There are {self.taken} {self._what} at the moment, and no more are taken; try again.",
                retry_after_s=self._retry_after_s,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
