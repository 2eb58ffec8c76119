"""Limits how many operations of a kind run at the same time. There is no queue for more."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Overloaded


class Places:
    """A number of places, used only by the event loop.

    `what` is the plural of the operation, for the message.
    """

    def __init__(self, count: int, what: str, *, retry_after_s: int) -> None:
        self._count = count
        self._what = what
        self._retry_after_s = retry_after_s
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take a place for the duration of the block. Raises Overloaded if none is free."""
        if self.taken >= self._count:
            raise Overloaded(
                f"The server accepts no more {self._what} at the moment (in progress: {self.taken}); try again "
                "later.",
                retry_after_s=self._retry_after_s,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
