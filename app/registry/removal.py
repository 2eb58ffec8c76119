"""Removing a version's files, so that a registered version always has its own, whoever registers it meanwhile."""

from pathlib import Path

from app.removal import moved_aside
from app.store import Store


def remove_files(store: Store, folder: Path) -> bool:
    """Remove a version's folder, unless the version is registered; whether this call has removed it.

    The folder is moved aside while nobody can register the version, and is removed once that has held to the end;
    at no moment is there a part of it under its name.

    Raises: StoreUnavailable, OSError where it cannot be moved; then it is where it was.
    """
    try:
        with moved_aside(folder) as move, store.versions.withheld(folder.name) as is_withheld:
            if not is_withheld:
                return False
            move()
    except FileNotFoundError:  # there is none, or somebody else removes it
        return False
    return True
