"""A job's process, as its supervisor sees it: started warm, given a job, watched for steps, brought to its end."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from worker.identity import ProcessId, identify
from worker.protocol import Assignment, Exit, environment

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "worker.job_process")
_READ = 65536


class ChildProcess:
    """One process for one job. Its stdin is the pipe that ends with this process, whatever happens to it."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        try:
            self._process = subprocess.Popen(
                [*command, "--ticks", str(writing)],
                stdin=subprocess.PIPE,
                pass_fds=(writing,),
                env=environment(os.environ),
                process_group=0,  # Ctrl-C is for the supervisor alone; `nice` is weighed within the session
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._ticks = reading
        self._last_step_at = time.monotonic()
        self.has_begun = False
        """Whether it renews its lease itself."""
        self.done = 0
        """How many steps its job has done, as far as it was read."""

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def identify(self) -> ProcessId | None:
        """Which process it is."""
        return identify(self.pid)

    def assign(self, assignment: Assignment) -> None:
        """Give it its job; one that has died meanwhile is found dead soon after."""
        self._last_step_at = time.monotonic()
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(assignment.dumps())
            stdin.flush()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stalled_s(self) -> float:
        """How long ago it took its last step."""
        self._read_ticks()
        return time.monotonic() - self._last_step_at

    def _read_ticks(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while told := os.read(self._ticks, _READ):
                self._last_step_at = time.monotonic()
                self.has_begun = True
                self.done = max([self.done, *map(int, told.split())])

    def ask_to_stop(self) -> None:
        """It should come to a checkpoint and end."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now, with whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Let go of it; it ends if it has not."""
        stdin = self._process.stdin
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
        if self.wait(0) is None and self.wait(1) is None:
            self.kill()
        self._read_ticks()
        os.close(self._ticks)


def died(code: int) -> str | None:
    """How a process died, in words; None for one that ended as it should."""
    if code < 0:
        try:
            return f"by {signal.Signals(-code).name}"
        except ValueError:
            return f"by signal {-code}"
    return None if code in list(Exit) else f"with exit code {code}"
