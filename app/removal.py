"""Removes files of records: a folder within the transaction that allows it, in what appears to others as one step."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.inside import inside
from sds_clip.app.store import Workspace
from sds_clip.app.store.records import Job

REMOVING = ".removing."
"""The prefix of folders that are being removed. A crash may leave some behind."""
# What `sds_clip.app.registry.publish` writes until it is whole.
_TEMPORARY = re.compile(r"\.?\.publishing\.(?P<job>[A-Za-z0-9_-]+)\.(?P<fence>\d+)(\.[0-9a-f]+)?")


def remove_job_files(store: Workspace, jobs_dir: Path, job_id: str, *, ended_for_s: float = 0.0) -> Job:
    """Remove a job's folder and record that in its row, which stays. Repeating it is not an error.

    The folder is moved aside while no worker can take up the job, so that a retry at the same time never finds a part
    of it, and is removed after that transaction has ended.

    Raises: UnknownRecord; JobStateConflict if the job has not ended, or did so less than `ended_for_s` ago and its
    files were not removed since; FilesOutside; StoreUnavailable; OSError if the folder cannot be moved, which leaves it
    in place.
    """
    with (
        _moved_aside(inside(jobs_dir, jobs_dir / job_id)) as move,
        store.jobs.withheld(job_id, ended_for_s=ended_for_s) as job,
        contextlib.suppress(FileNotFoundError),
    ):
        move()
    return job


def remove_version_files(store: Workspace, folder: Path) -> bool:
    """Remove a version's folder unless the version is registered. Returns whether this call removed it.

    The folder is moved aside while registration of the version is blocked, and is removed after that
    transaction has ended. No partial folder is ever visible under the version's name.

    Raises: StoreUnavailable; OSError if the folder cannot be moved, which leaves it in place.
    """
    try:
        with _moved_aside(folder) as move, store.versions.withheld(folder.name) as is_withheld:
            if not is_withheld:
                return False
            move()
    except FileNotFoundError:  # there is no folder, or another process is removing it
        return False
    return True


def remove_version_leftovers(
    versions: Path, *, held: Callable[[Collection[str]], Mapping[str, int]]
) -> list[Path]:
    """Remove the temporary folders of killed publishers, and folders whose removal was interrupted.

    Returns them.

    A publisher's folder is kept while its job still runs at that fence: `held` tells the fences of those jobs that do.
    It is asked after the folders were listed, so that it knows the job of each.
    """
    found = {path: _TEMPORARY.fullmatch(path.name) for path in sorted(versions.glob(".*"))}
    fences = held({temporary["job"] for temporary in found.values() if temporary})
    removed = []
    for path, temporary in found.items():
        abandoned = temporary and fences.get(temporary["job"]) != int(temporary["fence"])
        if abandoned or path.name.startswith(REMOVING):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


@contextlib.contextmanager
def _moved_aside(folder: Path) -> Iterator[Callable[[], None]]:
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
