"""A job's process as its supervisor sees it: started warm, assigned a job, watched, ended."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence

from sds_clip.worker.identity import ProcessId, identify
from sds_clip.worker.protocol import PYTHON, Exit, environment

COMMAND = (*PYTHON, "sds_clip.worker.job_process")
_READ = 65536


class ChildProcess:
    """One process for one job. Its stdin is a pipe that closes when this process ends, however it ends."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        try:
            self._process = subprocess.Popen(
                [*command, "--ticks", str(writing)],
                stdin=subprocess.PIPE,
                pass_fds=(writing,),
                env=environment(os.environ),
                process_group=0,  # no Ctrl-C; but the same session, so that `nice` works
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
        """Steps done by its job, as far as read."""
        self.device_bytes = 0
        """The memory that it has reserved on GPUs, as far as read."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def identify(self) -> ProcessId | None:
        return identify(self.pid)

    def assign(self, assignment: str) -> None:
        """Write the assignment, which is one line. A process that has died meanwhile is noticed by `wait`."""
        self._last_step_at = time.monotonic()
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(f"{assignment}\n".encode())
            stdin.flush()

    def wait(self, timeout_s: float) -> int | None:
        """Return its exit code, or minus the signal that ended it; None while it runs."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stalled_s(self) -> float:
        """Seconds since its last step."""
        self._read_ticks()
        return time.monotonic() - self._last_step_at

    def _read_ticks(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while told := os.read(self._ticks, _READ):
                for word in told.split():
                    if word.startswith(b"m"):
                        self.device_bytes = int(word[1:])
                        continue
                    self._last_step_at = time.monotonic()
                    self.has_begun = True
                    self.done = max(self.done, int(word))

    def ask_to_stop(self) -> None:
        """Ask it to stop at a checkpoint and exit."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with its whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Close its pipes; it is killed if it does not end within a second."""
        stdin = self._process.stdin
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
        if self.wait(0) is None and self.wait(1) is None:
            self.kill()
        self._read_ticks()
        os.close(self._ticks)


def died(code: int) -> str | None:
    """Describe how a process died; None if it ended with a code of `Exit`."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return None if code in list(Exit) else f"exit code {code}"
