"""How a process ends that is asked to stop while its main thread cannot be interrupted."""

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

STOP_S = 5.0
"""How long a process that was asked to stop may work on. What it then has to write takes time too."""


@contextmanager
def ended_in_time(numbers: Collection[signal.Signals], end: Callable[[int], object]) -> Iterator[None]:
    """Call `end` in a thread if the block still runs `STOP_S` after one of these signals.

    Python handles a signal in the main thread, between two of its own instructions. These may be minutes apart, while
    torch computes or a thread is waited for. The signals need a handler, and the caller must be the main thread.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    has_ended = threading.Event()

    def wait() -> None:
        while told := os.read(reading, 1):
            if told[0] in numbers:
                if not has_ended.wait(STOP_S):
                    end(told[0])
                return

    thread = threading.Thread(target=wait, name="deadline", daemon=True)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        has_ended.set()
        os.close(writing)
        thread.join()
        os.close(reading)
