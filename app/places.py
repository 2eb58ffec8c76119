"""Limits how many operations of a kind run at the same time. There is no queue for more."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import KeyLimitReached, Overloaded


class Places:
    """A number of places, used only by the event loop.

    `what` is the plural of the operation, for the message. With `per_key`, each API key has a limit of its own, which
    is the setting `max_WHAT_per_key`.
    """

    def __init__(
        self, count: int | None, what: str, *, retry_after_s: int, per_key: int | None = None
    ) -> None:
        self._count = count
        self._what = what
        self._retry_after_s = retry_after_s
        self._per_key = per_key
        self._by_key = Counter[str]()
        self.taken = 0

    @contextmanager
    def one(self, key: str = "") -> Iterator[None]:
        """Take a place for the duration of the block. `key` is the name of an API key, or "" for none.

        Raises: Overloaded if none is free, KeyLimitReached.
        """
        if key and self._per_key is not None and self._by_key[key] >= self._per_key:
            limit = f"max_{self._what.replace(' ', '_')}_per_key"
            raise KeyLimitReached(limit, self._per_key, retry_after_s=self._retry_after_s)
        if self._count is not None and self.taken >= self._count:
            raise Overloaded(
                f"The server accepts no more {self._what} at the moment (in progress: {self.taken}); try again "
                "later.",
                retry_after_s=self._retry_after_s,
            )
        self.taken += 1
        self._by_key[key] += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]
