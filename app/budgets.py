"""What all callers and each API key may have at the same time (`Budget`) and in a second (`Rate`).

Only the event loop uses them, and nothing waits in them. Keys are few: a file has them. Two limits are of another kind:
in app/decode_budget.py threads wait in line for memory, and app/serving/turns.py says whose request goes on.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sds_clip.app.errors import KeyLimitReached, Overloaded, ServiceError

ALL = ""
"""Stands for all callers together. No key has this name."""


@dataclass(frozen=True)
class Budget:
    """A total, and a share of it for each API key."""

    total: int | None
    what: str = ""
    """The plural of what takes one, for the message."""
    limit: str = ""
    """The name of the share."""
    per_key: int | None = None
    retry_after_s: Callable[[], int] = lambda: 1
    full: Callable[[int, int], ServiceError] | None = None
    """Makes another error of what is taken and of the total."""
    any_first: bool = False
    """Whether who has nothing may take any amount."""
    _taken: Counter[str] = field(default_factory=Counter)

    @property
    def used(self) -> int:
        return self._taken[ALL]

    def take(self, amount: int = 1, key: str = ALL, *, more: int = 0) -> None:
        """Take an amount. `key` is the name of an API key, or "" for none. `more` raises the total for this one.

        Raises: KeyLimitReached; Overloaded, or the error of `full`. Nothing is taken then.
        """
        share, total = self.per_key, math.inf if self.total is None else self.total + more
        if key and share is not None and not self._fits(key, amount, share):
            raise KeyLimitReached(self.limit, share, retry_after_s=self.retry_after_s())
        if not self._fits(ALL, amount, total):
            raise (self.full or self._overloaded)(self.used, int(total))
        self._add(amount, key)

    def give_back(self, amount: int = 1, key: str = ALL) -> None:
        self._add(-amount, key)

    @contextmanager
    def hold(self, amount: int = 1, key: str = ALL) -> Iterator[None]:
        """Take an amount for the duration of the block. Raises: as `take`."""
        self.take(amount, key)
        try:
            yield
        finally:
            self.give_back(amount, key)

    def _fits(self, name: str, amount: int, most: float) -> bool:
        before = self._taken[name]
        return before + amount <= most or (self.any_first and not before)

    def _add(self, amount: int, key: str) -> None:
        for name in {ALL, key}:
            self._taken[name] += amount

    def _overloaded(self, used: int, total: int) -> ServiceError:
        return Overloaded(
            f"The server accepts no more {self.what} at the moment (in progress: {used}); try again later.",
            retry_after_s=self.retry_after_s(),
        )


@dataclass(frozen=True)
class Rate:
    """A bucket for each key, which holds a second's worth and may go into debt. Without a key nothing is limited."""

    per_s: float
    limit: str = ""
    clock: Callable[[], float] = time.monotonic
    _taken: dict[str, float] = field(default_factory=dict)
    """What a key would have taken since the clock's beginning, if it had taken all it could before."""

    def spend(self, key: str, amount: float) -> None:
        """Spend what a request needs, however much, while the bucket is not empty.

        Later requests wait until its debt is paid. `key` is the name of an API key, or "" for none.

        Raises: KeyLimitReached.
        """
        debt_s = self._owed_s(key, 0)
        if key and debt_s >= 0:
            raise KeyLimitReached(self.limit, int(self.per_s), retry_after_s=max(1, math.ceil(debt_s)))
        self.owe(key, amount)

    def owe(self, key: str, amount: float, *, most_s: float = math.inf) -> float:
        """Take an amount in any case, and return the seconds until the debt is paid, which are at most `most_s`."""
        return max(0.0, self._owed_s(key, amount, most_s)) if key else 0.0

    def debt_s(self, key: str) -> float:
        """The seconds until the debt is paid."""
        return self.owe(key, 0)

    def _owed_s(self, key: str, amount: float, most_s: float = math.inf) -> float:
        paid = self.per_s * self.clock()
        least, most = paid - self.per_s, paid + most_s * self.per_s
        self._taken[key] = min(max(self._taken.get(key, least), least) + amount, most)
        return (self._taken[key] - paid) / self.per_s
