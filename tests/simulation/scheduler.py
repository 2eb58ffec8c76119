"""Processes and threads of a schedule: greenlets that take turns, a clock of their own, and choices from one seed.

A thread runs until it sleeps or waits. So everything between two such points is one step, and the same choices give the
same schedule.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TypeVar

from greenlet import getcurrent, greenlet

BEGINNING = 1_700_000_000.0
STEP_S = 0.001  # so that no two steps are at the same time
Option = TypeVar("Option")


class Broken(BaseException):
    """Something does not hold that must. No handler of errors in the code holds it up."""


class Killed(BaseException):
    """The process of this thread has ended. Like a real one, it does nothing more."""


class Choices:
    """Small numbers by a seed, of which 0 is always what happens where nothing goes wrong.

    With `forced`, they are 0 except at these positions. This is how a schedule is shrunk.
    """

    def __init__(self, seed: int, forced: Mapping[int, int] | None = None) -> None:
        self._random = random.Random(seed)
        self._forced = forced
        self.made: dict[int, int] = {}
        """The choices other than 0, by their positions."""
        self.count = 0

    def choose(self, rates: Sequence[float]) -> int:
        """One of 1, 2 and so on with the probability that `rates` has for it, else 0."""
        number = self._random.random()
        for choice, rate in enumerate(rates, start=1):
            if number < rate:
                return self._made(choice, len(rates))
            number -= rate
        return self._made(0, len(rates))

    def pick(self, options: Sequence[Option]) -> Option:
        """One of the options, each as likely. The first is the harmless one."""
        return options[self._made(self._random.randrange(len(options)), len(options) - 1)]

    def _made(self, choice: int, most: int) -> int:
        if self._forced is not None:
            choice = min(self._forced.get(self.count, 0), most)
        if choice:
            self.made[self.count] = choice
        self.count += 1
        return choice


class Host:
    """What is suspended as a whole: a machine with its processes, or one process."""

    def __init__(self) -> None:
        self.asleep_until = 0.0
        self.wakes_when: Callable[[], bool] | None = None
        """Ends the sleep earlier."""
        self.quiet_from = 0.0
        """From when on no fault has kept it from what it should do."""
        self.processes: list[Process] = []


class Process:
    """A process of the simulation. It ends as a whole, at any point of its threads."""

    def __init__(self, scheduler: "Scheduler", name: str, host: Host | None = None) -> None:
        self.scheduler = scheduler
        self.name = name
        self.pid = next(scheduler.pids)
        self.hosts = [Host(), *([] if host is None else [host])]
        self.threads: list[Thread] = []
        self.ended = Event(scheduler)
        self.at_end: list[Callable[[], None]] = []
        self.lease: tuple[str, int] | None = None
        """Job and fence on whose behalf it changes the database."""
        self.is_overtaken: Callable[[bool], bool] | None = None
        """Whether what it holds was claimed by another or, if this is asked, has ended since."""
        self.exit: Callable[[int], None] | None = None
        """What `os._exit` does in it."""
        self.is_mortal = True
        """Whether faults happen to it."""
        scheduler.processes.append(self)
        for each in self.hosts:
            each.processes.append(self)

    @property
    def is_dead(self) -> bool:
        return self.ended.is_set()

    @property
    def quiet_from(self) -> float:
        """From when on nothing but the order of steps has kept it, or its machine, from what it should do."""
        times = [time for host in self.hosts for time in (host.quiet_from, host.asleep_until)]
        return max(self.scheduler.quiet_from, *times)

    def start(self, act: Callable[[], object]) -> "Thread":
        thread = Thread(self, act)
        self.threads.append(thread)
        self.scheduler.wake(thread, self.scheduler.now)
        return thread

    def end(self) -> None:
        """End it with all its threads. Those of the caller's own process end at their next step."""
        if self.is_dead:
            return
        self.ended.set()
        self.scheduler.dying.append(self)
        for act in self.at_end:
            act()


class Thread(greenlet):
    """A thread of a process."""

    def __init__(self, process: Process, act: Callable[[], object]) -> None:
        super().__init__(parent=process.scheduler.hub)
        self.process = process
        self.turn = 0
        """The number of its entry in the schedule that counts. Others are outdated."""
        self.wake_at = 0.0
        self.is_in_transaction = False
        self.lease: tuple[str, int] | None = None
        """As its process has one, if the process has several."""
        self.finished = Event(process.scheduler)
        self._act = act

    def run(self) -> None:
        try:
            if not self.process.is_dead:
                self._act()
        except Killed:
            pass
        except Broken:
            pass  # the scheduler has it
        except Exception as error:
            self.process.scheduler.fail(
                f"{self.process.name} ended with {type(error).__name__}: {error}", error
            )
        finally:
            self.finished.set()


class Scheduler:
    """Runs threads one after the other, in the order of the times at which they wake."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.hub = getcurrent()
        self.now = 0.0
        """The monotonic clock of all processes."""
        self.skew_s = BEGINNING
        """What the clock of the database is ahead of it. It jumps."""
        self.pids = itertools.count(1)
        self.failure: Broken | None = None
        self.quiet_from = 0.0
        """From when on no fault has happened to all."""
        self.dying: list[Process] = []
        self.sleeping: list[Host] = []
        """Hosts that something may wake."""
        self.trace: list[str] | None = None
        self._entries: list[tuple[float, int, Thread]] = []
        self._numbers = itertools.count(1)
        self.processes: list[Process] = []

    def clock(self) -> float:
        """The time of the database, which goes on with each look."""
        self.now += STEP_S
        return self.now + self.skew_s

    def fail(self, what: str, cause: BaseException | None = None) -> None:
        """Record that something is wrong, which ends the schedule."""
        if self.failure is None:
            self.failure = Broken(what)
            self.failure.__cause__ = cause

    def note(self, what: str) -> None:
        if self.trace is not None:
            thread = getcurrent()
            who = thread.process.name if isinstance(thread, Thread) else "-"
            self.trace.append(f"{self.now:10.3f}  {who:<12}  {what}")

    def wake(self, thread: "Thread", at: float) -> None:
        thread.turn, thread.wake_at = next(self._numbers), at
        heapq.heappush(self._entries, (at, thread.turn, thread))

    def sleep(self, seconds: float) -> None:
        """Let the others go on until the current thread wakes."""
        thread = current()
        self.wake(thread, self.now + seconds)
        self.wait()

    def wait(self) -> None:
        """Let the others go on until somebody wakes the current thread."""
        thread = current()
        if not thread.process.is_dead and self.failure is None:
            self.hub.switch()
        self.check(thread)

    def check(self, thread: "Thread") -> None:
        """Raise Killed if the thread must not go on."""
        if self.failure is not None:
            raise self.failure
        if thread.process.is_dead:
            raise Killed

    def suspend(self, host: Host, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Stop a host for a time, or until a condition holds. The current thread then goes on first."""
        host.asleep_until = self.now + seconds
        if until is not None:
            host.wakes_when = until
            self.sleeping.append(host)
        self.wake(current(), self.now - 1.0)
        self.wait()

    def look_at_sleepers(self) -> None:
        """Wake the hosts for whom something has come true."""
        for host in [each for each in self.sleeping if each.wakes_when is not None and each.wakes_when()]:
            self.sleeping.remove(host)
            host.asleep_until = self.now
            for process in host.processes:
                for thread in process.threads:
                    if not thread.dead and thread.turn:
                        self.wake(thread, min(thread.wake_at, self.now))

    def run(self, until: Callable[[], bool]) -> None:
        """Let threads take turns until a condition holds or something is wrong. Raises Broken."""
        while self.failure is None and not until():
            thread = self._next()
            if thread is None:
                self.fail("Nobody has anything left to do.")
                break
            thread.switch()
            self._bury()
        if self.failure is not None:
            raise self.failure

    def _next(self) -> Thread | None:
        while self._entries:
            at, turn, thread = heapq.heappop(self._entries)
            if thread.turn != turn or thread.dead:
                continue
            asleep_until = max(host.asleep_until for host in thread.process.hosts)
            if asleep_until > self.now and asleep_until > at:
                heapq.heappush(self._entries, (asleep_until + min(0.0, at - self.now) * 1e-6, turn, thread))
                continue
            self.now = max(self.now, at)
            thread.turn = 0
            return thread
        return None

    def _bury(self) -> None:
        while self.dying:
            for thread in self.dying.pop().threads:
                if thread:  # it has begun and not ended
                    thread.throw(Killed)

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.end()
        self._bury()


def current() -> Thread:
    thread = getcurrent()
    assert isinstance(thread, Thread)
    return thread


class Event:
    """`threading.Event` for the threads of a schedule."""

    def __init__(self, scheduler: Scheduler | None = None) -> None:
        self._scheduler = scheduler or current().process.scheduler
        self._is_set = False
        self._waiting: list[Thread] = []

    def is_set(self) -> bool:
        return self._is_set

    def clear(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for thread in waiting:
            if not thread.dead:
                self._scheduler.wake(thread, self._scheduler.now)

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            thread = current()
            self._waiting.append(thread)
            try:
                if timeout is None:
                    self._scheduler.wait()
                else:
                    self._scheduler.sleep(timeout)
            finally:
                if thread in self._waiting:
                    self._waiting.remove(thread)
        return self._is_set


class Lock:
    """`threading.Lock` for the threads of a schedule."""

    def __init__(self) -> None:
        self._free = Event()
        self._free.set()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        until = float("inf") if timeout < 0 else current().process.scheduler.now + timeout
        while not self._free.is_set():
            left_s = until - current().process.scheduler.now
            if not blocking or left_s <= 0:
                return False
            self._free.wait(None if left_s == float("inf") else left_s)
        self._free.clear()
        return True

    def release(self) -> None:
        self._free.set()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class _Started:
    """`threading.Thread` in the process of whoever makes it."""

    def __init__(self, target: Callable[[], object], name: str = "", daemon: bool = True) -> None:
        self._process, self._target = current().process, target
        self._thread: Thread | None = None

    def start(self) -> None:
        self._thread = self._process.start(self._target)

    def is_alive(self) -> bool:
        return self._thread is not None and not self._thread.finished.is_set()

    def join(self, timeout: float | None = None) -> None:
        if self._thread is not None and self._thread is not getcurrent():
            self._thread.finished.wait(timeout)


def _sleep(seconds: float) -> None:
    current().process.scheduler.sleep(seconds)


threading = SimpleNamespace(Event=Event, Lock=Lock, Thread=_Started)
"""What stands for the module in the code that is simulated."""
time = SimpleNamespace(
    sleep=_sleep,
    monotonic=lambda: current().process.scheduler.now,
    time=lambda: current().process.scheduler.clock(),
)
