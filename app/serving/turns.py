"""Turns: while several API keys ask for work, each has only little in progress, so that none waits long for another.

A key alone has the whole machine: all its requests are in progress, and their batches become as large as they can.
While other keys are active too, a key has as many images and texts in progress as are computed in TURN_S at the
measured rate, or else one request. Its other requests wait in its own line, before their images are decoded. On a
device that computes a full batch in less time, this changes little.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

TURN_S = 0.05
# A key counts as active for this long after its last request, so that its next one finds short turns.
ACTIVE_S = 5.0


@dataclass
class _Key:
    line: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the request that comes next. The others wait for it, first in, first out."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    items: int = 0
    """In progress."""
    seen_at: float = 0.0


class Turns:
    """The turns of all keys. Only the event loop uses it. `items_per_s` is the measured rate, or 0 if it is unknown."""

    def __init__(self, items_per_s: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._items_per_s = items_per_s
        self._clock = clock
        self._keys: dict[str, _Key] = {}
        """By name. They come from the keys file, so there are few."""

    @property
    def items(self) -> int | None:
        """The number of images and texts in a turn, or None for any number, while no two keys are active."""
        since = self._clock() - ACTIVE_S
        active = sum(key.items > 0 or key.line.locked() or key.seen_at > since for key in self._keys.values())
        rate = self._items_per_s()
        return None if active < 2 or rate == 0 else max(1, int(TURN_S * rate))

    @contextlib.asynccontextmanager
    async def take(self, name: str, items: int) -> AsyncIterator[None]:
        """Wait for a turn of the key `name`, and hold it during the block."""
        key = self._keys.setdefault(name, _Key())
        async with key.line:
            while key.items and (most := self.items) is not None and key.items + items > most:
                key.ended.clear()
                await key.ended.wait()
            key.items += items
        try:
            yield
        finally:
            key.items -= items
            key.seen_at = self._clock()
            key.ended.set()
