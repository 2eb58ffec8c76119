"""Removing a folder in one step, as far as anybody sees, within a transaction that allows it."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from app.store.errors import StoreUnavailable

REMOVING = ".removing."
"""How the names of folders begin that are being removed; a crash may leave them."""


@contextlib.contextmanager
def moved_aside(folder: Path) -> Iterator[Callable[[], None]]:
    """Yields what moves the folder aside, to be called within the transaction; it is removed after the block.

    Where StoreUnavailable ends the block, the folder is put back. Raises what moving it raises (OSError); then it is
    where it was.
    """
    aside = folder.with_name(f"{REMOVING}{folder.name}.{secrets.token_hex(4)}")
    try:
        yield lambda: os.rename(folder, aside)
    except StoreUnavailable:
        with contextlib.suppress(OSError):
            os.rename(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)  # what stays of it is cleared away with what crashes leave
