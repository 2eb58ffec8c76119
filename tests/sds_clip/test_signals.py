import os
import signal

import pytest

from sds_clip.signals import hold
from tests.worker.waiting import until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_early_reaches_the_handler_that_is_set_later(number: signal.Signals) -> None:
    before, taken = signal.getsignal(number), []
    try:
        hold([number])
        os.kill(os.getpid(), number)
        assert taken == []
        signal.signal(number, lambda got, frame: taken.append(got))
        until(lambda: taken)
        assert taken == [number]
    finally:
        signal.signal(number, before)
