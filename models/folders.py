"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from models.references import CheckpointError


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to write into; once the block ends well, it is on the disk and named `out`.

    Raises CheckpointError where `out` exists, and where it cannot be written (a full disk, say): nothing is
    left of it then.
    """
    if out.exists() or out.is_symlink():
        raise CheckpointError(f"{out} exists; choose another folder.")
    working = out.absolute().parent / f".{out.name}.{secrets.token_hex(4)}"
    try:
        working.mkdir(parents=True)
        yield working
        _sync(working)
        os.rename(working, out)
        sync_folder(working.parent)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CheckpointError(
            f"{out} cannot be written ({reason}). Nothing of it was left behind: free some space, or name a "
            "folder that may be written."
        ) from error
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors leaves it to its owner alone
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
