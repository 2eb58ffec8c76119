"""What a supervisor and a job's process say to each other: the assignment, the ticks, and the exit code."""

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

from app.store.records import Lease
from worker.config import WorkerConfig


class Exit(IntEnum):
    """Everything but a signal or an unknown code: those mean that the process died."""

    ENDED = 0
    """The job succeeded, or failed with its reason; its row says which."""
    RELEASED = 10
    """It stopped at a checkpoint and released the job."""
    LEASE_LOST = 11
    """Somebody else has the job, or it has ended."""
    STORE_AWAY = 12
    """The database does not answer; the lease will end by itself."""
    ORPHANED = 13
    """Its supervisor is gone."""


@dataclass(frozen=True)
class Assignment:
    """What a supervisor writes into a job process's input."""

    config: WorkerConfig
    lease: Lease

    def dumps(self) -> bytes:
        """As one line."""
        content = {"config": self.config.dumps(), "job": self.lease.job_id, "fence": self.lease.fence}
        return json.dumps(content).encode() + b"\n"

    @classmethod
    def loads(cls, line: bytes) -> "Assignment":
        """From what `dumps` wrote."""
        content = json.loads(line)
        return cls(WorkerConfig.loads(content["config"]), Lease(content["job"], content["fence"]))


class Ticks:
    """Tells the supervisor by a pipe that the job goes on, and how far it is: a line at most ten times a second."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._last = 0.0
        if descriptor is not None:
            os.set_blocking(descriptor, False)

    def begin(self) -> None:
        """The process renews its lease by itself from now on."""
        self._write(0)

    def tick(self, done: int = 0) -> None:
        """The job has come on a step, to so many of them."""
        now = time.monotonic()
        if now - self._last >= 0.1:
            self._last = now
            self._write(done)

    def _write(self, done: int) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, b"%d\n" % done)
        except BlockingIOError:  # it is full: the supervisor has not looked for long, and will find a step
            pass
        except OSError:  # the supervisor has gone, which another thread finds out
            self._descriptor = None


def end_with(supervisor: BinaryIO) -> None:
    """End this process, in whatever state it is, when the pipe from its supervisor closes."""

    def wait() -> None:
        supervisor.read()
        os._exit(Exit.ORPHANED)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a job's process: one that was started by a launcher is not part of its run."""
    return {
        name: value
        for name, value in inherited.items()
        if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }
