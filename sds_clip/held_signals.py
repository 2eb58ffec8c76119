"""Signals that come before a program has taken them over, kept until it has."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType

_LOOK_S = 0.05


def hold(numbers: Sequence[signal.Signals]) -> None:
    """From now on such a signal waits until somebody has set a handler of their own, and is sent to that.

    A worker has a job before Celery takes SIGTERM, whose default would end it without letting the job go.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=_send_later, args=(number, handle), daemon=True).start()

    for number in numbers:
        signal.signal(number, handle)


def _send_later(number: int, held_by: object) -> None:
    while signal.getsignal(number) is held_by:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), number)
