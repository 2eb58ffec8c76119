"""Signal handling for processes that a user, `sds-clip up` or an operator stops."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from sds_clip.models.deadline import ended_in_time

_LOOK_S = 0.05
_STDIN = 0


@contextlib.contextmanager
def handled(
    numbers: Sequence[signal.Signals], handle: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle these signals within the block, then restore the previous handlers."""
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stopped_in_time(last: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Within the block, end the process soon after SIGINT or SIGTERM, whatever it computes or waits for.

    `last` is called before, in another thread. The exit code is that of the signal.
    """

    def end(number: int) -> None:
        try:
            last()
        finally:
            os._exit(128 + number)

    with ended_in_time((signal.SIGINT, signal.SIGTERM), end):
        yield


def hold(numbers: Sequence[signal.Signals]) -> None:
    """Hold back these signals until another handler is set, then pass them to it.

    A worker may have a job before Celery handles SIGTERM. The default action of SIGTERM would end the worker
    without releasing the job.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=send_later, args=(number,), daemon=True).start()

    def send_later(number: int) -> None:
        while signal.getsignal(number) is handle:
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), number)

    for number in numbers:
        signal.signal(number, handle)


def end_with_supervisor() -> None:
    """Send this process a SIGTERM when its stdin closes, so that it stops in the usual way.

    Its stdin is a pipe from the supervisor. The pipe closes however the supervisor ends.
    """

    def wait() -> None:
        while os.read(_STDIN, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()
