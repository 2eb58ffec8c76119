"""What dies is started again: after a second, then two, four, up to half a minute."""

import logging
from typing import Protocol

from app.errors import ConfigurationError

logger = logging.getLogger(__name__)

FIRST_S = 1.0
LONGEST_S = 30.0
SETTLED_S = 60.0
"""Whoever has run for so long begins with the shortest pause again."""


class Part(Protocol):
    """Something that runs in a process of its own."""

    def start(self) -> None:
        """Start it, also again."""

    def is_running(self) -> bool:
        """Whether it lives."""


class Restarts:
    """Looks after one part, which has been started."""

    def __init__(self, name: str, part: Part, now: float) -> None:
        self._name = name
        self._part = part
        self._started_at = now
        self._due_at: float | None = None
        self._pause_s = FIRST_S

    def look(self, now: float) -> None:
        """Start it again where it has died and its pause is over."""
        if self._due_at is None:
            if not self._part.is_running():
                if now - self._started_at >= SETTLED_S:
                    self._pause_s = FIRST_S
                logger.error("%s has died; it is started again in %g s", self._name, self._pause_s)
                self._pause(now)
        elif now >= self._due_at:
            self._due_at, self._started_at = None, now
            try:
                self._part.start()
            except (ConfigurationError, OSError) as error:
                logger.error("%s cannot be started: %s", self._name, error)
                self._pause(now)

    def _pause(self, now: float) -> None:
        self._due_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_S)
