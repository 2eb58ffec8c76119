"""A lock that a process holds on a data set, and that no crash leaves behind.

The kernel drops an flock with the process that held it: no process number that another may have by now, no
clock, and no matter whether the processes share a container. It holds among the processes of one machine, and
over NFS 4 and later.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.datasets.disk import storage_errors
from app.datasets.errors import DatasetBusy


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold the lock that `file` stands for; the file is removed with it.

    Raises: StorageFull; DatasetBusy, at once, when another process or thread holds it.
    """
    descriptor = _acquire(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: whoever opens the name next makes a new file
        os.close(descriptor)


def _acquire(file: Path) -> int:
    while True:
        with storage_errors():
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(file, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise DatasetBusy(
                "The data set is being received, checked or removed; try again later."
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed it between our opening and our locking


def _is(file: Path, descriptor: int) -> bool:
    """Is the open file still the one of that name?"""
    try:
        return os.path.samestat(os.stat(file, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
