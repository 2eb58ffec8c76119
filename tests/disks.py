"""Disks that are really full: small file systems in memory. Mounting one needs root."""

import contextlib
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_BLOCKS = (2**20, 4096)


class Disk:
    """A small disk that is mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / ".ballast"

    def fill(self) -> None:
        """Take every free block."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in _BLOCKS:
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()

    def grow(self, size: str) -> None:
        """Make the disk larger, or smaller."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)


@contextlib.contextmanager
def small_disk(path: Path, size: str, inodes: int = 0) -> Iterator[Disk]:
    """Mount a disk of some bytes ("2m") and inodes (0: any number). The test is skipped if that is not allowed."""
    path.mkdir(parents=True)
    options = f"size={size},nr_inodes={inodes},mode=0755"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    try:
        made = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount program")
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        # Lazily: a process that a failed test has left may have files open.
        subprocess.run(["umount", "--lazy", str(path)], check=True)
