"""Turns: while several API keys ask for work, each has only little in progress, so that none waits long for another.

A key alone has the whole machine: all its requests are in progress, and their batches become as large as they can.
While other keys are active too, a key that asks for more than a burst has as much in progress as is computed in TURN_S,
as images and texts have taken lately, or else one request. Its other requests wait in its own line, before their images
are decoded. On a device that computes a full batch in less time, this changes little. A burst is larger for a key that
has computed less of late than all others.

Who has computed more of late gives way: before each request, and before each further part of one, what keys that have
computed less have in progress goes first, for as long as it should take. Nobody gives way to what takes longer than a
turn and than the request.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

TURN_S = 0.05
# A key counts as active for this long after its last request, so that its next one finds short turns.
ACTIVE_S = 5.0
# A key that asks for no more than a burst has it all in progress, so that a few requests are one batch. A burst is this
# part of what the key has computed less than the others, within these limits.
BURST_S, MAX_BURST_S = 4 * TURN_S, 20 * TURN_S
BURST_OF_LEAD = 1 / 4
# What a key has computed counts half after this time.
HALF_LIFE_S = 5.0
# A request is read and decoded too, so it takes about this many times as long as its images and texts compute.
MARGIN = 2


@dataclass
class _Key:
    line: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the request that comes next. The others wait for it, first in, first out."""
    requests: int = 0
    seconds: float = 0.0
    """Of its requests in progress."""
    asked_s: float = 0.0
    """Of these and of those in line."""
    due: float = 0.0
    """When those in progress should have ended. One that waits for something else, such as a URL, may take longer."""
    seen_at: float = 0.0
    computed_s: float = 0.0
    """What it has computed of late, as of `computed_at`."""
    computed_at: float = 0.0

    def is_full(self, seconds: float, burst_s: float) -> bool:
        """Whether a request has to wait while other keys are active."""
        return self.requests > 0 and self.asked_s > burst_s and self.seconds + seconds > TURN_S

    def lately(self, now: float) -> float:
        return self.computed_s * math.exp2((self.computed_at - now) / HALF_LIFE_S)

    def add(self, seconds: float, now: float) -> None:
        self.computed_s, self.computed_at = self.lately(now) + seconds, now


class Turns:
    """The turns of all keys. Only the event loop uses it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._keys: dict[str, _Key] = {}
        """By name. They come from the keys file, so there are few."""
        self._ended = asyncio.Event()
        """Set when the next request ends."""

    @property
    def shared(self) -> bool:
        """Whether two keys are active, so that a turn is short."""
        return sum(map(self._is_active, self._keys.values())) > 1

    def _is_active(self, key: _Key) -> bool:
        return key.requests > 0 or key.line.locked() or key.seen_at > self._clock() - ACTIVE_S

    @contextlib.asynccontextmanager
    async def take(self, name: str, seconds: float) -> AsyncIterator[None]:
        """Wait for a turn of the key `name`, and hold it during the block, which computes for `seconds`."""
        key = self._keys.setdefault(name, _Key())
        key.asked_s += seconds
        try:
            async with key.line:
                while self.shared and key.is_full(seconds, self._burst_s(key)):
                    await self._ended.wait()
                await self._give_way(key, seconds)
                key.requests += 1
                key.seconds += seconds
            now = self._clock()
            key.due = max(key.due, now) + MARGIN * seconds
            key.add(seconds, now)
            token = _turn.set((self, key, seconds))
            try:
                yield
            finally:
                _turn.reset(token)
                key.requests -= 1
                key.seconds -= seconds
                if not key.requests:
                    key.seconds = key.due = 0.0
                key.seen_at = self._clock()
                self._ended.set()
                self._ended = asyncio.Event()
        finally:
            key.asked_s -= seconds

    def _burst_s(self, key: _Key) -> float:
        now = self._clock()
        others = (
            each.lately(now) for each in self._keys.values() if each is not key and self._is_active(each)
        )
        lead_s = min(others, default=0.0) - key.lately(now)
        return min(MAX_BURST_S, max(BURST_S, BURST_OF_LEAD * lead_s))

    async def _give_way(self, key: _Key, seconds: float) -> None:
        until = math.inf
        while others := self._before(key, max(TURN_S, seconds)):
            until = min(until, max(other.due for other in others))
            try:
                async with asyncio.timeout(until - self._clock()):
                    await self._ended.wait()
            except TimeoutError:
                return

    def _before(self, key: _Key, most_s: float) -> list[_Key]:
        """The keys that have computed less, with requests in progress that are not overdue, `most_s` each at most."""
        now = self._clock()
        own = key.lately(now)
        return [
            other
            for other in self._keys.values()
            if other.requests
            and other.due > now
            and other.seconds <= most_s * other.requests
            and other.lately(now) < own
        ]


_turn: ContextVar[tuple[Turns, _Key, float] | None] = ContextVar("turn", default=None)
"""Of the request that this task works on, with its seconds."""


async def give_way() -> None:
    """Before a further part of the task's request: let the requests of keys that have computed less go first."""
    if (turn := _turn.get()) is not None:
        turns, key, seconds = turn
        await turns._give_way(key, seconds)


def meter() -> Callable[[float], None]:
    """What to call with the seconds that the task's request computes besides what its turn counts."""
    if (turn := _turn.get()) is None:
        return lambda seconds: None
    turns, key, _ = turn
    return lambda seconds: key.add(seconds, turns._clock())
