"""What all callers and each API key may have at the same time (`Budget`) and in a second (`Rate`).

Only the event loop uses them, and nothing waits in them. Two limits are of another kind: in app/decode_budget.py
threads wait in line for memory, and app/serving/turns.py says whose request goes on.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sds_clip.app.errors import KeyLimitReached, Overloaded, ServiceError

ALL = ""
"""Stands for all callers together. No key has this name."""


class Numbers:
    """A number for each name, in the memory of this process. Each call is one step. Keys are few: a file has them.

    Another implementation of these methods could keep them where all processes see them.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, float] = {}

    def get(self, name: str) -> float:
        return self._numbers.get(name, 0)

    def add(self, name: str, amount: float, *, most: float = math.inf, any_first: bool = False) -> bool:
        """Add to a number, unless it would exceed `most`. With `any_first`, 0 may become anything."""
        before = self._numbers.get(name, 0)
        if before + amount > most and (before or not any_first):
            return False
        self._numbers[name] = before + amount
        return True

    def push(self, name: str, amount: float, *, least: float, most: float = math.inf) -> float:
        """Add to a number, or to `least` if it is less or unknown, up to `most`. Returns the number."""
        self._numbers[name] = after = min(max(self._numbers.get(name, least), least) + amount, most)
        return after


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
    numbers: Numbers = field(default_factory=Numbers)

    @property
    def used(self) -> int:
        return int(self.numbers.get(ALL))

    def take(self, amount: int = 1, key: str = ALL, *, more: int = 0) -> None:
        """Take an amount. `key` is the name of an API key, or "" for none. `more` raises the total for this one.

        Raises: KeyLimitReached; Overloaded, or the error of `full`. Nothing is taken then.
        """
        add, share = self.numbers.add, self.per_key
        if key and share is not None and not add(key, amount, most=share, any_first=self.any_first):
            raise KeyLimitReached(self.limit, share, retry_after_s=self.retry_after_s())
        total = math.inf if self.total is None else self.total + more
        if not add(ALL, amount, most=total, any_first=self.any_first):
            self._give_back_share(amount, key)
            raise (self.full or self._overloaded)(self.used, int(total))

    def give_back(self, amount: int = 1, key: str = ALL) -> None:
        self.numbers.add(ALL, -amount)
        self._give_back_share(amount, key)

    @contextmanager
    def hold(self, amount: int = 1, key: str = ALL) -> Iterator[None]:
        """Take an amount for the duration of the block. Raises: as `take`."""
        self.take(amount, key)
        try:
            yield
        finally:
            self.give_back(amount, key)

    def _give_back_share(self, amount: int, key: str) -> None:
        if key and self.per_key is not None:
            self.numbers.add(key, -amount)

    def _overloaded(self, used: int, total: int) -> ServiceError:
        return Overloaded(
            f"The server accepts no more {self.what} at the moment (in progress: {used}); try again later.",
            retry_after_s=self.retry_after_s(),
        )


@dataclass(frozen=True)
class Rate:
    """A bucket for each key, which holds a second's worth and may go into debt. Without a key nothing is limited.

    The number of a key is what it would have taken since the clock's beginning, if it had taken all it could before.
    """

    per_s: float
    limit: str = ""
    clock: Callable[[], float] = time.monotonic
    numbers: Numbers = field(default_factory=Numbers)

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
        most = paid + most_s * self.per_s
        return (self.numbers.push(key, amount, least=paid - self.per_s, most=most) - paid) / self.per_s
