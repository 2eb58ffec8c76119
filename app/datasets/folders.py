"""Where data sets lie on the disk, and what a crash leaves of them.

    ROOT/work/ID.lock     held by the process that is at work on the data set
    ROOT/work/ID/         what it is writing or removing; rubbish as soon as nobody holds the lock
    ROOT/uploads/ID/      a whole upload that waits for its check
    ROOT/sets/ID/         a checked data set

Everything is written under work/ and renamed into its place, so that what stands in the other folders is
whole. Who is there is for the caller's records to say, which are made and changed while the lock is held:
whatever nobody locks and no record wants is rubbish, exactly, with no guess at its age.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.datasets.disk import storage_errors
from app.datasets.errors import DatasetBusy
from app.datasets.locks import held
from models.atomic import sync_folder

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LOCK = ".lock"
_NEW, _OLD = "new", "old"


class DatasetFolders:
    """The folders of all data sets. Made if missing; several processes may share them."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.work, self.uploads, self.sets = (self._root / name for name in ("work", "uploads", "sets"))
        for folder in (self.work, self.uploads, self.sets):
            folder.mkdir(parents=True, exist_ok=True)

    def upload(self, dataset_id: str) -> Path:
        """The folder of an upload that waits for its check."""
        return self.uploads / _checked(dataset_id)

    def content(self, dataset_id: str) -> Path:
        """The folder of a checked data set."""
        return self.sets / _checked(dataset_id)

    @contextmanager
    def claim(self, dataset_id: str) -> Iterator["Claim"]:
        """Be the only one at work on a data set. Records about it are to be committed within.

        Raises: DatasetBusy.
        """
        _checked(dataset_id)
        with held(self.work / (dataset_id + _LOCK)):
            working = self.work / dataset_id
            _remove(working)
            try:
                with storage_errors():
                    (working / _NEW).mkdir(parents=True)
                yield Claim(self, dataset_id, working)
            finally:
                _remove(working)

    def remove(self, dataset_id: str) -> None:
        """Remove an upload and a data set, at once for whoever looks. Slow for many files: not on an event loop.

        Raises: DatasetBusy.
        """
        with self.claim(dataset_id) as claim:
            claim.drop_upload()
            claim.drop_set()

    def sweep(self, *, wants_upload: Callable[[str], bool], wants_set: Callable[[str], bool]) -> list[str]:
        """Remove what crashes have left, and name the data sets of which it was. For the start of a process.

        `wants_upload` and `wants_set` say whether a record needs that folder now. They are asked under the
        data set's lock, so a process that has written a folder and not yet committed its record loses nothing.
        """

        def unwanted(dataset_id: str) -> tuple[bool, bool]:
            return (
                self.upload(dataset_id).exists() and not wants_upload(dataset_id),
                self.content(dataset_id).exists() and not wants_set(dataset_id),
            )

        swept: list[str] = []
        for dataset_id in self._present():
            left = (self.work / dataset_id).exists()
            # Looked at first without the lock, which would be in the way of those at work.
            if not left and not any(unwanted(dataset_id)):
                continue
            with suppress(DatasetBusy), self.claim(dataset_id) as claim:
                upload, published = unwanted(dataset_id)
                if upload:
                    claim.drop_upload()
                if published:
                    claim.drop_set()
                if left or upload or published:
                    swept.append(dataset_id)
        return swept

    def _present(self) -> list[str]:
        names = {
            entry.name.removesuffix(_LOCK)
            for folder in (self.work, self.uploads, self.sets)
            for entry in folder.iterdir()
        }
        return sorted(name for name in names if _ID.fullmatch(name))


class Claim:
    """Work on one data set. `folder` is empty, private to this claim, and gone with it."""

    def __init__(self, folders: DatasetFolders, dataset_id: str, working: Path) -> None:
        self._folders = folders
        self._id = dataset_id
        self._old = working / _OLD
        self.folder = working / _NEW

    def keep_upload(self) -> Path:
        """Make what lies in `folder` the upload that waits for its check; `folder` is empty again.

        The files must be synced, as `receive` leaves them.
        """
        upload = self._folders.upload(self._id)
        self._replace(upload, self.folder)
        self.folder.mkdir()
        return upload

    def publish(self) -> Path:
        """Make what lies in `folder` the checked data set, once it is on the disk.

        One that is there is replaced: a check that a crash has cut off between its folder and its record.
        """
        with storage_errors():
            # One sync for all: a file at a time takes milliseconds each, and there may be half a million.
            os.sync()
        published = self._folders.content(self._id)
        self._replace(published, self.folder)
        return published

    def publish_upload(self) -> Path:
        """Make the upload, as it is, the checked data set."""
        published = self._folders.content(self._id)
        self._replace(published, self._folders.upload(self._id))
        return published

    def drop_upload(self) -> None:
        """Remove the upload, if there is one."""
        self._discard(self._folders.upload(self._id))

    def drop_set(self) -> None:
        """Remove the data set, if there is one."""
        self._discard(self._folders.content(self._id))

    def _replace(self, place: Path, folder: Path) -> None:
        self._discard(place)
        with storage_errors():
            sync_folder(folder)
            folder.rename(place)
            sync_folder(place.parent)

    def _discard(self, folder: Path) -> None:
        """Away in one step, then file by file."""
        if folder.exists():
            folder.rename(self._old)
            sync_folder(folder.parent)
            _remove(self._old)


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.exists():
        shutil.rmtree(folder)


def _checked(dataset_id: str) -> str:
    if not _ID.fullmatch(dataset_id):
        raise ValueError(f"not a data set's id: {dataset_id!r}")
    return dataset_id
