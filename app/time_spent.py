"""How long a request keeps the interpreter: in its steps in the event loop, and in its calls in threads.

What it waits for meanwhile does not count, and neither does the forward pass, which has turns of its own.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from functools import partial
from types import coroutine
from typing import Any, TypeVar, cast

Result = TypeVar("Result")


class TimeSpent:
    """Seconds, which tasks and threads add to. What is added counts for `of` too."""

    def __init__(self, of: "TimeSpent | None" = None) -> None:
        self.seconds = 0.0
        self._of = of
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        with self._lock:
            self.seconds += seconds
        if self._of is not None:
            self._of.add(seconds)


_current: ContextVar[TimeSpent | None] = ContextVar("time_spent", default=None)


@coroutine
def counted(work: Awaitable[Result], spent: TimeSpent) -> Generator[Any, Any, Result]:
    """Await `work`, and count each of its steps. Calls in threads count by `in_thread`."""
    token = _current.set(spent)
    steps = work.__await__()
    resume = send = partial(steps.send, None)
    try:
        while True:
            started = time.thread_time()
            try:
                waits_for = resume()
            except StopIteration as end:
                return cast(Result, end.value)
            finally:
                spent.add(time.thread_time() - started)
            try:
                yield waits_for
            except BaseException as error:  # the task is cancelled, or its loop ends
                resume = partial(steps.throw, error)
            else:
                resume = send
    finally:
        _current.reset(token)


def in_thread(call: Callable[[], Result]) -> Result:
    """Run a call of the current request in a thread, and count it. It needs the request's context."""
    spent = _current.get()
    if spent is None:
        return call()
    started = time.thread_time()
    try:
        return call()
    finally:
        spent.add(time.thread_time() - started)
