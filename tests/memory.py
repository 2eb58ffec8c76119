"""Files in memory: a test's database waits for no disk, which is not what is tested."""

import os
import shutil
from pathlib import Path

SHARED = Path("/dev/shm")


def memory_folder(room: int) -> Path | None:
    """The folder in memory, if there is one with so many bytes free. It may forbid to run programs."""
    if os.access(SHARED, os.W_OK) and shutil.disk_usage(SHARED).free >= room:
        return SHARED
    return None
