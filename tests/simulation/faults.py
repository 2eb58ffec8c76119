"""What goes wrong: at each transaction and each change of files, as the choices say.

A transaction is one step, as it is on SQLite. What several transactions of PostgreSQL do to each other between their
statements is tried out on a real one (tests/app/store/test_races.py).
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from greenlet import getcurrent
from sqlalchemy import Connection

from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.store.database import Database
from tests.simulation.scheduler import Killed, Process, Scheduler, Thread

URL = "sqlite:///file:%252Fsimulation?vfs=memdb&uri=true"
"""A database in memory that all connections of this process share."""


class Fate(IntEnum):
    """What becomes of a step."""

    FINE = 0
    AFTER_OTHERS = 1
    """Everyone who is due goes first."""
    LATE = 2
    """Its thread waits for some seconds."""
    ASLEEP = 3
    """Its process is stopped for a while, which may be longer than a lease."""
    OVERTAKEN = 4
    """Its whole host is suspended until another worker has claimed its job, or ended it. Then this step is first."""
    KILLED = 5
    KILLED_AFTER = 6
    REFUSED = 7
    """The database fails the transaction."""
    UNANSWERED = 8
    """The transaction took place, but its process is told that it may not have."""
    AWAY = 9
    """The database fails every transaction for a while."""
    CLOCK = 10
    """The clock of the database jumps."""


def rates(**given: float) -> tuple[float, ...]:
    return tuple(given.get(fate.name.lower(), 0.0) for fate in list(Fate)[1:])


ROUGH = rates(
    after_others=0.1,
    late=0.05,
    asleep=0.02,
    overtaken=0.03,
    killed=0.02,
    killed_after=0.02,
    refused=0.02,
    unanswered=0.03,
    away=0.004,
    clock=0.004,
)
CROWDED = rates(after_others=0.25, late=0.15, killed=0.005, unanswered=0.01)
"""Few faults, and many orders."""
OVERSLEPT = rates(after_others=0.05, late=0.05, overtaken=0.25, unanswered=0.01)
"""Workers wake when their jobs are somebody else's."""
GENTLE = rates(after_others=0.1, late=0.03, overtaken=0.003, killed=0.002, refused=0.002, unanswered=0.005)
"""So few faults that jobs have their turns, and others wait for them."""
MANNERS = (ROUGH, CROWDED, OVERSLEPT, ROUGH)
"""Those of the schedules, in turn by their seeds."""


TO_FILES, GENTLE_TO_FILES = (0.02, 0.04, 0.1), (0.003, 0.003, 0.1)
"""How often a process is killed before a change of files, or after it, or waits."""


@dataclass
class Faults:
    """Decides what becomes of each step."""

    scheduler: Scheduler
    rates: tuple[float, ...]
    of_files: tuple[float, ...] = TO_FILES
    are_off: bool = False
    away_until: float = 0.0

    def before(self, what: str) -> Fate:
        """Called before each step of a process. Returns what to do after it. Raises Killed, StoreUnavailable."""
        thread = getcurrent()
        if not isinstance(thread, Thread):
            return Fate.FINE
        scheduler, process = self.scheduler, thread.process
        scheduler.check(thread)
        scheduler.now += 0.001
        if self.are_off or not process.is_mortal:
            return Fate.FINE
        if self.away_until > scheduler.now:
            scheduler.quiet_from = self.away_until
            raise StoreUnavailable
        fate = Fate(scheduler.choices.choose(self.rates))
        if fate is Fate.FINE:
            return fate
        scheduler.note(f"{fate.name.lower()} at: {what}")
        if fate is Fate.AFTER_OTHERS:
            scheduler.sleep(0)
            return Fate.FINE
        self._disturb(process)
        if fate is Fate.LATE:
            scheduler.sleep(self._disturb(process, scheduler.choices.pick((0.3, 2.0, 8.0, 25.0))))
        elif fate is Fate.ASLEEP:
            seconds = self._disturb(process, scheduler.choices.pick((30.0, 70.0, 150.0)))
            scheduler.suspend(process.hosts[0], seconds)
        elif fate is Fate.OVERTAKEN and (is_overtaken := process.is_overtaken) is not None:
            has_ended = scheduler.choices.pick((False, True))
            scheduler.suspend(process.hosts[-1], 400.0, until=lambda: is_overtaken(has_ended))
        elif fate is Fate.KILLED:
            process.end()
            raise Killed
        elif fate is Fate.AWAY:
            self.away_until = scheduler.now + scheduler.choices.pick((3.0, 20.0, 90.0))
        elif fate is Fate.CLOCK:
            scheduler.quiet_from = scheduler.now
            scheduler.skew_s += scheduler.choices.pick((5.0, 65.0, 3600.0, -5.0, -65.0))
        elif fate in (Fate.KILLED_AFTER, Fate.UNANSWERED):
            return fate
        elif fate is Fate.REFUSED:
            raise StoreUnavailable
        return Fate.FINE

    def _disturb(self, process: Process, seconds: float = 0.0) -> float:
        """Note that the process's machine does not do what it should, for these seconds. Returns them."""
        host = process.hosts[-1]
        host.quiet_from = max(host.quiet_from, self.scheduler.now + seconds)
        return seconds

    def after(self, fate: Fate) -> None:
        """Called after each step. Raises Killed, StoreUnavailable."""
        if fate is Fate.KILLED_AFTER:
            thread = getcurrent()
            assert isinstance(thread, Thread)
            thread.process.end()
            raise Killed
        if fate is Fate.UNANSWERED:
            raise StoreUnavailable

    def file(self, what: str) -> bool:
        """Called before each change of files, which is not refused, since a full disk has its own tests.

        Returns whether the process is killed after the change, and ends it. Raises Killed.
        """
        thread = getcurrent()
        if not isinstance(thread, Thread):
            return False
        self.scheduler.check(thread)
        if self.are_off or not thread.process.is_mortal:
            return False
        choice = self.scheduler.choices.choose(self.of_files)
        if choice == 3:
            if not thread.is_in_transaction:  # within one, nobody else may go on
                self.scheduler.sleep(self._disturb(thread.process, self.scheduler.choices.pick((2.0, 30.0))))
        elif choice:
            self.scheduler.note(f"killed {'before' if choice == 1 else 'after'}: {what}")
            thread.process.end()
        if choice == 1:
            raise Killed
        return choice == 2


class FaultyDatabase(Database):
    """The real database, whose transactions fail as the choices say."""

    faults: Faults | None = None
    committed: Callable[[], None] = staticmethod(lambda: None)
    """Called after each transaction that may have changed something."""

    def reading(self) -> AbstractContextManager[Connection]:
        return self._step(super().reading, "read")

    def writing(self) -> AbstractContextManager[Connection]:
        return self._step(super().writing, "write", writes=True)

    @contextmanager
    def _step(
        self, begin: Callable[[], AbstractContextManager[Connection]], what: str, *, writes: bool = False
    ) -> Iterator[Connection]:
        fate = Fate.FINE if self.faults is None else self.faults.before(what)
        thread = getcurrent()
        with begin() as connection:
            thread.is_in_transaction = True
            try:
                yield connection
            finally:
                thread.is_in_transaction = False
        if writes:
            self.committed()
        if self.faults is not None:
            self.faults.after(fate)


def files(faults: Faults, moves: Callable[[Path], None]) -> Mapping[str, Any]:
    """The functions that change files, each of which is a step."""

    def step(act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(path: Path, *arguments: Any, **options: Any) -> Any:
            is_killed = faults.file(f"{act.__name__} {path}")
            moves(path)
            act(path, *arguments, **options)
            if is_killed:
                raise Killed

        return acting

    return {"rename": step(os.rename), "rmtree": step(shutil.rmtree), "step": step}
