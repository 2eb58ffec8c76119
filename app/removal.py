"""Removes a folder within the transaction that allows it, in what appears to others as one step."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from sds_clip.app.errors import StoreUnavailable

REMOVING = ".removing."
"""The prefix of folders that are being removed. A crash may leave some behind."""


@contextlib.contextmanager
def moved_aside(folder: Path) -> Iterator[Callable[[], None]]:
    """Yield a function that moves the folder aside, to be called within the transaction.

    The folder is removed after the block. If StoreUnavailable ends the block, the folder is put back. Raises
    the OSError of the move, which leaves the folder in place.
    """
    aside = folder.with_name(f"{REMOVING}{folder.name}.{secrets.token_hex(4)}")
    try:
        yield lambda: os.rename(folder, aside)
    except StoreUnavailable:
        with contextlib.suppress(OSError):
            os.rename(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)  # the cleanup after crashes also removes what is left here
