"""Limits how many images and texts a second each API key sends to this process."""

import math
import time
from collections.abc import Callable

from app.errors import KeyLimitReached


class ItemRates:
    """A bucket of items for each key, which holds a second's worth and may go into debt.

    A request of any size is admitted while the bucket is not empty. Later requests wait until its debt is paid.
    """

    def __init__(self, per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """By key: the items that were left, and when. Keys come from the keys file, so there are few."""

    def take(self, key: str, items: int) -> None:
        """Take items for a request. `key` is the name of an API key, or "" for none. Raises KeyLimitReached."""
        if not key:
            return
        now = self._clock()
        left, since = self._buckets.get(key, (self._per_s, now))
        left = min(self._per_s, left + self._per_s * (now - since))
        if left <= 0:
            wait_s = max(1, math.ceil(-left / self._per_s))
            raise KeyLimitReached("max_items_per_s_per_key", self._per_s, retry_after_s=wait_s)
        self._buckets[key] = left - items, now
