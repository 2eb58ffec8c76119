"""Removing a version's files, so that a registered version always has its own, whoever registers it meanwhile."""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from app.registry.publish import REMOVING
from app.store import Store
from app.store.errors import StoreUnavailable


def remove_files(store: Store, folder: Path) -> bool:
    """Remove a version's folder, unless the version is registered; whether this call has removed it.

    The folder is moved aside while nobody can register the version, and is removed once that has held to the end;
    at no moment is there a part of it under its name.

    Raises: StoreUnavailable, OSError where it cannot be moved; then it is where it was.
    """
    aside = folder.with_name(f"{REMOVING}{folder.name}.{secrets.token_hex(4)}")
    try:
        with store.versions.withheld(folder.name) as is_withheld:
            if not is_withheld:
                return False
            os.rename(folder, aside)
    except FileNotFoundError:  # there is none, or somebody else removes it
        return False
    except StoreUnavailable:
        with contextlib.suppress(OSError):
            os.rename(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)  # what stays of it is cleared away with what crashes leave
    return True
