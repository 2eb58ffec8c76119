"""The embedded run: starts and stops the processes of the whole system on one machine.

    start      the service, then the workers once the service is ready
    stop       the workers, which release their jobs at a checkpoint, then the service

The broker starts before all of them and stops after them. A process that dies is restarted.
"""

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from types import FrameType
from typing import Protocol

from sds_clip.app.errors import ConfigurationError
from sds_clip.signals import handled

logger = logging.getLogger(__name__)

# Pause before a restart: doubled up to the longest, reset once a part has run for SETTLED_S.
FIRST_S = 1.0
LONGEST_S = 30.0
SETTLED_S = 60.0
LOOK_S = 0.2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Part(Protocol):
    """Something that runs in its own process; `start` also restarts it."""

    def start(self) -> None: ...

    def is_running(self) -> bool: ...


@dataclass
class Child:
    """A command in its own process group: Ctrl-C in a terminal reaches only the supervisor.

    It stays in the supervisor's session. Linux gives each session an equal share of the cores (autogroups)
    whatever the niceness of its processes, so a training run would take as much as the service.
    """

    name: str
    _command: Sequence[str]
    _environment: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        self.close()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            env={**os.environ, **self._environment},
            process_group=0,
        )
        logger.info("The %s runs as process %d.", self.name, self._process.pid)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int:
        """The exit code of one that ended by itself; 1 for a signal."""
        assert self._process is not None
        return max(self._process.wait(), 0) or 1

    def ask_to_stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self._process is not None and self.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


class Restarts:
    """Restarts one part after it has died, with pauses of 1, 2, 4, and up to 30 s."""

    def __init__(self, name: str, part: Part, now: float) -> None:
        self._name = name
        self._part = part
        self._started_at = now
        self._due_at: float | None = None
        self._pause_s = FIRST_S

    def look(self, now: float) -> None:
        if self._due_at is None:
            if not self._part.is_running():
                if now - self._started_at >= SETTLED_S:
                    self._pause_s = FIRST_S
                logger.error("The %s has died. It restarts in %g s.", self._name, self._pause_s)
                self._pause(now)
        elif now >= self._due_at:
            self._due_at, self._started_at = None, now
            try:
                self._part.start()
            except (ConfigurationError, OSError) as error:
                logger.error("The %s could not be started: %s", self._name, error)
                self._pause(now)

    def _pause(self, now: float) -> None:
        self._due_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_S)


@dataclass(frozen=True)
class System:
    """Runs until the first SIGINT, SIGTERM or SIGHUP. A second signal kills what is still running."""

    _service: Child
    _workers: Sequence[Child]
    _is_ready: Callable[[], bool]
    _broker: Part | None
    _: KW_ONLY
    worker_grace_s: float
    service_grace_s: float
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _hurrying: threading.Event = field(default_factory=threading.Event, init=False)

    def run(self, on_ready: Callable[[], None]) -> int:
        """Start, supervise and stop everything.

        Returns 0, or the service's exit code if the service never became ready.
        """
        with handled(_SIGNALS, self._receive):
            try:
                logger.info("Starting the service, which takes some seconds.")
                self._service.start()
                if not self._wait_until_ready():
                    return 0 if self._stopping.is_set() else self._service.exit_code()
                for worker in self._workers:
                    worker.start()
                on_ready()
                self._look_after()
            finally:
                logger.info("Stopping: running jobs stop at a checkpoint. Press Ctrl-C again to kill them.")
                self._end(self._workers, self.worker_grace_s)
                self._end([self._service], self.service_grace_s)
        return 0

    def _wait_until_ready(self) -> bool:
        """Return False if the service ended first, or the run is asked to stop."""
        while not self._stopping.wait(LOOK_S):
            if not self._service.is_running():
                return False
            if self._is_ready():
                return True
        return False

    def _look_after(self) -> None:
        now = time.monotonic()
        watched = [Restarts(child.name, child, now) for child in (self._service, *self._workers)]
        if self._broker is not None:
            watched.insert(0, Restarts("Valkey server", self._broker, now))
        while not self._stopping.wait(LOOK_S):
            for part in watched:
                part.look(time.monotonic())

    def _end(self, children: Sequence[Child], grace_s: float) -> None:
        for child in children:
            child.ask_to_stop()
        deadline = time.monotonic() + grace_s
        while any(child.is_running() for child in children) and time.monotonic() < deadline:
            if self._hurrying.wait(LOOK_S):
                break
        for child in children:
            if child.is_running():
                logger.warning("The %s did not stop in time, so it is killed.", child.name)
                child.kill()
            child.close()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        (self._hurrying if self._stopping.is_set() else self._stopping).set()
