"""When each API key was last used, for the operator who looks for keys that nobody needs."""

import logging
import math
import threading
import time
from pathlib import Path

logger = logging.getLogger(__name__)

FOLDER = "keys-used"
"""In the data folder. It has a file for each key, named by the key's hash."""
NOTE_EVERY_S = 300.0


class KeyUses:
    """Notes the uses of keys as the times of files, which the processes of all hosts may set at once.

    Each process does so at most once in five minutes for a key, in a thread, and no request waits for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next_s: dict[str, float] = {}

    def note(self, key_sha256: str) -> None:
        if time.monotonic() < self._next_s.get(key_sha256, 0.0):
            return
        self._next_s[key_sha256] = math.inf  # until it is written, however long the disk takes
        threading.Thread(target=self._touch, args=(key_sha256,), name="note key", daemon=True).start()

    def _touch(self, key_sha256: str) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / key_sha256).touch(mode=0o600)
        except OSError as error:
            logger.warning("The use of a key cannot be noted in %s: %s.", self._folder, error.strerror)
        self._next_s[key_sha256] = time.monotonic() + NOTE_EVERY_S


def last_used(folder: Path, key_sha256: str) -> float | None:
    """In seconds since the epoch, up to five minutes too early. None if the key was never used."""
    try:
        return (folder / key_sha256).stat().st_mtime
    except FileNotFoundError:
        return None
