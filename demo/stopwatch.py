"""Measures the processor time of a run over all its starts, which does not depend on what else runs."""

from __future__ import annotations

import time
from pathlib import Path

from sds_clip.models.atomic import write_atomic


class Stopwatch:
    """Continues from the seconds in its file. A kill loses the time since the last tick."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._before_s = float(file.read_text(encoding="utf-8")) if file.exists() else 0.0
        self._began = time.process_time()

    @property
    def seconds(self) -> float:
        """Seconds of one core so far, over all starts, and of all of the process's threads."""
        return self._before_s + time.process_time() - self._began

    def tick(self) -> None:
        """Store the seconds so far."""
        write_atomic(self._file, f"{self.seconds}\n")
