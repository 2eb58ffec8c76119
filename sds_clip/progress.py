"""How far a command is."""

import sys
import time
from typing import Any

from sds_clip.table import say

_TOLD_EVERY_S = 10.0


class Progress:
    """Shows what is done, the rate and the time left: a bar on a terminal, elsewhere a line every ten seconds.

    Each stage has its own, and so has one that begins again. Without `has_lines`, nothing is shown but bars.
    """

    def __init__(self, *, has_lines: bool = True, unit: str = "it", counted: str = " images") -> None:
        """`unit` is what a bar counts. A line counts `counted`, which is empty if the stages' names say it."""
        self.bar: Any = None
        self._has_lines, self._unit, self._counted = has_lines, unit, counted
        self._stage: str | None = None
        self._first = self._done = 0
        self._started_at = self._told_at = 0.0

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def show(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage or done < self._done:
            self._begin(stage, done, total)
        if self.bar is not None:
            self.bar.total = total
            self.bar.update(done - self.bar.n)
        elif self._has_lines:
            self._tell(done, total)
        self._done = done
        if done == total:
            self.close()
            self._stage = None

    def _begin(self, stage: str, done: int, total: int) -> None:
        self.close()
        self._stage, self._first = stage, done
        self._started_at = self._told_at = time.monotonic()
        if self._has_lines and self._counted and done:
            say(f"Continuing after {done} of {total}{self._counted}.")
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                desc=stage or "images", initial=done, total=total, unit=self._unit, dynamic_ncols=True
            )
        elif self._has_lines and self._counted and stage:
            say(f"{stage}: {total}{self._counted}")

    def _tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_S:
            rate, paced = (done - self._first) / (now - self._started_at), ""
            if rate:
                paced = f", {rate:.1f} a second, {(total - done) / rate:.0f} s left"
            head = f"{self._stage}: " if self._stage else ""
            say(f"{head}{done} of {total}{self._counted}{paced}")
            self._told_at = now
