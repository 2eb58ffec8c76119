"""Limits what each API key has in this process in a second: requests, items, refusals, bytes and computing time."""

import math
import time
from collections.abc import Callable

from app.errors import KeyLimitReached


class Rates:
    """A bucket for each key, which holds a second's worth and may go into debt. Without a key nothing is limited."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s = per_s
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """By key: what was left, and when. Keys come from the keys file, so there are few."""

    def take(self, key: str, items: int) -> None:
        """Take the items of a request, of any size, while the bucket is not empty.

        Later requests wait until its debt is paid. `key` is the name of an API key, or "" for none.

        Raises: KeyLimitReached.
        """
        now, left = self._left(key)
        if left <= 0:
            wait_s = max(1, math.ceil(-left / self.per_s))
            raise KeyLimitReached("max_items_per_s_per_key", int(self.per_s), retry_after_s=wait_s)
        self._set(key, now, left - items)

    def owe(self, key: str, amount: float, *, most_s: float = math.inf) -> float:
        """Take an amount in any case, and return the seconds until the debt is paid, which are at most `most_s`."""
        now, left = self._left(key)
        left = max(left - amount, -most_s * self.per_s)
        self._set(key, now, left)
        return max(0.0, -left / self.per_s) if key else 0.0

    def debt_s(self, key: str) -> float:
        """The seconds until the debt is paid."""
        return max(0.0, -self._left(key)[1] / self.per_s)

    def _left(self, key: str) -> tuple[float, float]:
        """The time now, and what is left."""
        now = self._clock()
        left, since = self._buckets.get(key, (self.per_s, now))
        return now, min(self.per_s, left + self.per_s * (now - since))

    def _set(self, key: str, now: float, left: float) -> None:
        if key:
            self._buckets[key] = left, now
