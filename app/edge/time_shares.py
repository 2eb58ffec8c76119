"""Shares of time: while several keys are active, each computes only for a part of each second, besides inference."""

import math
import time
from asyncio import sleep
from collections import defaultdict
from collections.abc import Awaitable, Callable

from sds_clip.app.budgets import Rate
from sds_clip.app.errors import KeyLimitReached
from sds_clip.app.serving.turns import ACTIVE_S
from sds_clip.app.time_spent import TimeSpent, counted

SHARE_OF_TIME = 0.1
"""Seconds that a key's requests may compute in a second while other keys are active."""
MAX_WAIT_S = 10.0
"""How long a request waits for what its key has computed before. One that would wait longer is refused."""
GUESS_S = 0.005
"""What the first request of a key is expected to compute."""


class TimeShares:
    """The shares of all keys. Only the event loop uses it. Keys come from the keys file, so there are few."""

    def __init__(self, seconds: Rate) -> None:
        self._seconds = seconds
        self._seen_at: dict[str, float] = {}
        self._expected_s: defaultdict[str, float] = defaultdict(lambda: GUESS_S)
        """What a request of the key computes, as its last ones did."""
        self._spent: defaultdict[str, TimeSpent] = defaultdict(TimeSpent)
        """What all requests of the key have computed. Threads of requests that were given up add to it later."""
        self._charged_s: defaultdict[str, float] = defaultdict(float)

    def see(self, key: str) -> None:
        """Note that the key is active."""
        self._seen_at[key] = time.monotonic()

    async def run(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a request of the key once its share has room for it.

        Raises: KeyLimitReached if that would take long.
        """
        if not self._others_are_active(key):
            await work()
            return
        self._charge(key)
        wait_s = self._seconds.debt_s(key)
        if wait_s > MAX_WAIT_S:
            raise KeyLimitReached(
                "share_of_time",
                SHARE_OF_TIME,
                retry_after_s=math.ceil(wait_s - MAX_WAIT_S),
                advice="other keys are active, so send fewer requests besides inference, or try again later",
            )
        expected_s = self._expected_s[key]
        self._seconds.owe(key, expected_s)  # so that the next request waits for this one too
        spent = TimeSpent(self._spent[key])
        try:
            await sleep(wait_s)
            await counted(work(), spent)
        finally:
            self._seconds.owe(key, -expected_s)
            self._charge(key)
            self._expected_s[key] += (spent.seconds - expected_s) / 8

    def _charge(self, key: str) -> None:
        spent_s = self._spent[key].seconds
        self._seconds.owe(key, spent_s - self._charged_s[key])
        self._charged_s[key] = spent_s

    def _others_are_active(self, key: str) -> bool:
        since = time.monotonic() - ACTIVE_S
        return any(seen_at > since for name, seen_at in self._seen_at.items() if name != key)
