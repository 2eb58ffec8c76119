"""Removes a version's files, but never those of a version that is registered, even at the same time."""

from pathlib import Path

from app.removal import moved_aside
from app.store import Store


def remove_files(store: Store, folder: Path) -> bool:
    """Remove a version's folder unless the version is registered. Returns whether this call removed it.

    The folder is moved aside while registration of the version is blocked, and is removed after that
    transaction has ended. No partial folder is ever visible under the version's name.

    Raises: StoreUnavailable; OSError if the folder cannot be moved, which leaves it in place.
    """
    try:
        with moved_aside(folder) as move, store.versions.withheld(folder.name) as is_withheld:
            if not is_withheld:
                return False
            move()
    except FileNotFoundError:  # there is no folder, or another process is removing it
        return False
    return True
