"""Turns: while several API keys ask for work, each has only little in progress, so that none waits long for another.

A key alone has the whole machine: all its requests are in progress, and their batches become as large as they can.
While other keys are active too, a key has as much in progress as is computed in TURN_S, as images and texts have taken
lately, or else one request. Its other requests wait in its own line, before their images are decoded. On a device that
computes a full batch in less time, this changes little.
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
    requests: int = 0
    seconds: float = 0.0
    """Of its requests in progress."""
    seen_at: float = 0.0


class Turns:
    """The turns of all keys. Only the event loop uses it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._keys: dict[str, _Key] = {}
        """By name. They come from the keys file, so there are few."""

    @property
    def shared(self) -> bool:
        """Whether two keys are active, so that a turn is short."""
        since = self._clock() - ACTIVE_S
        active = sum(
            key.requests > 0 or key.line.locked() or key.seen_at > since for key in self._keys.values()
        )
        return active > 1

    @contextlib.asynccontextmanager
    async def take(self, name: str, seconds: float) -> AsyncIterator[None]:
        """Wait for a turn of the key `name`, and hold it during the block, which computes for `seconds`."""
        key = self._keys.setdefault(name, _Key())
        async with key.line:
            while key.requests and self.shared and key.seconds + seconds > TURN_S:
                key.ended.clear()
                await key.ended.wait()
            key.requests += 1
            key.seconds += seconds
        try:
            yield
        finally:
            key.requests -= 1
            key.seconds = key.seconds - seconds if key.requests else 0.0
            key.seen_at = self._clock()
            key.ended.set()
