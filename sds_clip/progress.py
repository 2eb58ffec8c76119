"""How far a command is with its images."""

from __future__ import annotations

import sys
import time
from typing import Any

from sds_clip.table import say

_TOLD_EVERY_S = 30.0


class Progress:
    """Shows what is done, the rate and the time left: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, stage: str = "") -> None:
        self._stage = stage
        self._bar: Any = None
        self._first, self._started_at, self._told_at = 0, 0.0, 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        head = f"{self._stage}: " if self._stage else ""
        if not self._started_at:
            self._first, self._started_at, self._told_at = done, now, now
            if done:
                say(f"Continuing after {done} of {total} images.")
            if sys.stderr.isatty():
                from tqdm import tqdm

                bar = tqdm(desc=self._stage or "images", initial=done, total=total, dynamic_ncols=True)
                self._bar = bar
            elif head:
                say(f"{head}{total} images")
        elif self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
        elif now - self._told_at >= _TOLD_EVERY_S and done > self._first:
            rate = (done - self._first) / (now - self._started_at)
            left_s = (total - done) / rate
            say(f"{head}{done} of {total} images, {rate:.1f} a second, {left_s:.0f} s left")
            self._told_at = now
