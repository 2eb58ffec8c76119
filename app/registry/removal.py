"""Removes files of versions: those of one that is not registered, and what killed publishers have left."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from sds_clip.app.removal import REMOVING, moved_aside
from sds_clip.app.store import Workspace

# What `sds_clip.app.registry.publish` writes until it is whole.
_TEMPORARY = re.compile(r"\.?\.publishing\.(?P<job>[A-Za-z0-9_-]+)\.(?P<fence>\d+)(\.[0-9a-f]+)?")


def remove_files(store: Workspace, folder: Path) -> bool:
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


def remove_leftovers(versions: Path, *, is_live: Callable[[str, int], bool]) -> list[Path]:
    """Remove the temporary folders of killed publishers, and folders whose removal was interrupted.

    Returns them.

    A publisher's folder is kept while its job still runs at that fence.
    """
    removed = []
    for path in sorted(versions.glob(".*")):
        temporary = _TEMPORARY.fullmatch(path.name)
        abandoned = temporary and not is_live(temporary["job"], int(temporary["fence"]))
        if abandoned or path.name.startswith(REMOVING):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed
