"""The protocol between a supervisor and a job's process: assignment, ticks and exit code."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from sds_clip.app.store.records import Lease
from sds_clip.worker.config import WorkerConfig

# -P: a package of the current folder that is named as one of ours must not hide it.
PYTHON = (sys.executable, "-P", "-m")


class Exit(IntEnum):
    """Exit codes of a job's process. Any other code, or a signal, means that it died."""

    ENDED = 0
    """The job succeeded or failed; its row says which."""
    RELEASED = 10
    """The job stopped at a checkpoint and was released."""
    LEASE_LOST = 11
    """Another worker holds the job, or it has ended."""
    STORE_AWAY = 12
    """The database does not answer; the lease will expire."""
    ORPHANED = 13
    """The supervisor is gone."""


@dataclass(frozen=True)
class Assignment:
    """Written by a supervisor to its job process's stdin."""

    config: WorkerConfig
    lease: Lease
    trace: Mapping[str, str] = field(default_factory=dict)
    """The span of the attempt (`sds_clip.app.tracing`)."""

    def dumps(self) -> str:
        content = {"config": self.config.dumps(), "job": self.lease.job_id, "fence": self.lease.fence}
        content["trace"] = dict(self.trace)
        return json.dumps(content)

    @classmethod
    def loads(cls, line: str) -> "Assignment":
        content = json.loads(line)
        lease = Lease(content["job"], content["fence"])
        return cls(WorkerConfig.loads(content["config"]), lease, content["trace"])


class Ticks:
    """Writes the number of steps done to the supervisor's pipe, at most ten times a second."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._last = 0.0
        if descriptor is not None:
            os.set_blocking(descriptor, False)

    def begin(self) -> None:
        """Tell the supervisor that from now on this process renews its lease itself."""
        self._write(b"0")

    def tick(self, done: int = 0) -> None:
        now = time.monotonic()
        if now - self._last >= 0.1:
            self._last = now
            self._write(b"%d" % done)

    def memory(self, device_bytes: int) -> None:
        """Tell the supervisor how much memory this process has reserved on its GPUs. This is no step."""
        self._write(b"m%d" % device_bytes)

    def _write(self, word: bytes) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, word + b"\n")
        except BlockingIOError:  # the pipe is full: the supervisor finds a step when it looks
            pass
        except OSError:  # the supervisor is gone; the thread of `end_with` ends the process
            self._descriptor = None


def read_assignment() -> str:
    """Wait for the first line of the input. Exit at once, without any cleanup, when the supervisor's pipe closes."""
    # Ctrl-C reaches every process in a terminal; the supervisor decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(Exit.ORPHANED)

    if not line.endswith(b"\n"):
        wait()
    threading.Thread(target=wait, name="supervisor", daemon=True).start()
    return line.decode()


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a job's process, without the variables of a distributed launcher."""
    return {
        name: value
        for name, value in inherited.items()
        if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }
