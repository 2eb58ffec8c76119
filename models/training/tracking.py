"""Passes what a run logs on to a tracker, in a thread: a tracker that fails neither fails nor slows the run."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from queue import SimpleQueue
from typing import Any

from sds_clip.models.training.watcher import Record

logger = logging.getLogger(__name__)

BEGIN_WAIT_S = 60.0
"""How long the end of a run waits for a tracker that is still starting. MLflow takes ten seconds on a slow machine."""
END_WAIT_S = 10.0
"""How long it then waits for what has not been sent yet."""


class Outcome(StrEnum):
    """How a run ended, in MLflow's words. A killed run may be resumed."""

    FINISHED = "FINISHED"
    KILLED = "KILLED"
    FAILED = "FAILED"


class Tracker(ABC):
    """A run in TensorBoard or MLflow. Any method may raise anything."""

    def __init__(self) -> None:
        self._sent: dict[str, set[int]] = {}
        """The steps of each figure that it has from before."""

    def lacking(self, record: Record) -> list[tuple[str, int | float]]:
        """The figures of a record that it does not have from before."""
        step = int(record["step"])
        return [(name, value) for name, value in figures(record) if step not in self._sent.get(name, ())]

    @abstractmethod
    def begin(self, config: Mapping[str, Any]) -> None:
        """Start the run, or go on with it. Every record since step 0 is then logged, again after a resume."""

    @abstractmethod
    def log(self, record: Record) -> int:
        """Log the figures of a record that the tracker does not have yet, and return how many these are."""

    @abstractmethod
    def end(self, outcome: Outcome) -> None: ...


class Tracking:
    """Tells a tracker of a run, from `begin` until the block ends. Without a tracker it does nothing.

    The first failure is logged as a warning. After it the tracker is left alone.
    """

    def __init__(self, tracker: Tracker | None) -> None:
        self.outcome = Outcome.KILLED
        self._tracker = tracker
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def __enter__(self) -> "Tracking":
        if self._tracker is not None:
            self._thread.start()
        return self

    def begin(self, config: Mapping[str, Any], records: Iterable[Record]) -> None:
        """Start with what the run has logged so far."""
        if self._tracker is not None:
            tracker = self._tracker
            self._calls.put(lambda: tracker.begin(config))
            self._calls.put(self._has_begun.set)
            for record in records:
                self.log(record)

    def log(self, record: Record) -> None:
        if self._tracker is not None and self._thread.is_alive():
            tracker = self._tracker
            self._calls.put(lambda: tracker.log(record))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._tracker is None:
            return
        tracker, outcome = self._tracker, self.outcome if error is None else Outcome.FAILED
        self._calls.put(lambda: tracker.end(outcome))
        self._calls.put(None)
        self._has_begun.wait(BEGIN_WAIT_S)
        self._thread.join(END_WAIT_S)
        if self._thread.is_alive():
            logger.warning(
                "The tracker is still busy; what it has not received by now may be lost. `sds-clip track` sends it "
                "from the run's own log."
            )

    def _run(self) -> None:
        try:
            while (call := self._calls.get()) is not None:
                call()
        except Exception as error:
            logger.warning(
                "The tracker failed, and the run goes on without it (%s: %s). The run's own log is complete.",
                type(error).__name__,
                str(error).strip().partition("\n")[0],
            )
        finally:
            self._has_begun.set()


def figures(record: Record) -> Iterator[tuple[str, int | float]]:
    """Yield the named figures of a record."""
    return ((name, value) for name, value in record.items() if name not in ("step", "steps"))
