"""The folder in the data folder in which one backup, or one restore, works."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class BackupError(ValueError):
    """A backup cannot be made or restored; the message says what to do."""


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder within `folder`, which is removed after the block.

    What a killed process has left there is removed first. A lock keeps other processes out.

    Raises: BackupError while another process uses the folder; OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", mode=0o600, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BackupError(f"Another process is working in {folder}. Wait until it has ended.") from None
    working = folder / "files"
    try:
        if working.exists():
            shutil.rmtree(working)
        working.mkdir(mode=0o700)
        yield working
    finally:
        shutil.rmtree(working, ignore_errors=True)
        lock.release()
