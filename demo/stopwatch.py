"""How long a run took in all its starts: a stopped one goes on counting where it was."""

from __future__ import annotations

import time
from pathlib import Path

from models.atomic import write_atomic


class Stopwatch:
    """Counts from where its file says. A kill loses what has passed since the last tick."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._before_s = float(file.read_text(encoding="utf-8")) if file.exists() else 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """So far, of all starts together."""
        return self._before_s + time.monotonic() - self._began

    def tick(self) -> None:
        """Keep the seconds so far."""
        write_atomic(self._file, f"{self.seconds}\n")
