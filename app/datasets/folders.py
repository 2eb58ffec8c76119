"""Where data sets lie on the disk, and what a crash leaves of them.

    ROOT/work/ID.lock     held by the process that is at work on the data set
    ROOT/work/ID/         what it is writing or removing; rubbish as soon as nobody holds the lock
    ROOT/uploads/ID/      a whole upload that waits for its check
    ROOT/sets/ID/         a checked data set

Everything is written under work/ and renamed into its place, so that what stands in the other folders is
whole. Who is there is for the caller's records to say, which are made and changed while the lock is held:
whatever nobody locks and no record wants is rubbish, exactly, with no guess at its age.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.datasets.errors import DatasetBusy, StorageFull
from models.atomic import sync_folder

ARCHIVE = "archive"
"""In an upload's folder: an archive, to be unpacked."""
SHARDS = "shards"
"""In an upload's or a data set's folder: the folder of shards, each under its `shard_name`."""
FILES = "files"
"""In a data set's folder: what its archive held."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LOCK = ".lock"
_NEW, _OLD = "new", "old"
# EFBIG: over the size that the file system, or the process's limit, allows a file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Content:
    """Where a data set's files are: one folder, or shards in their order."""

    paths: tuple[Path, ...]
    is_folder: bool


def set_content(folder: Path) -> Content:
    """What a data set's folder holds, for whoever trains on it or evaluates with it.

    Raises: FileNotFoundError.
    """
    files = folder / FILES
    if files.is_dir():
        return Content((files,), is_folder=True)
    return Content(tuple(sorted((folder / SHARDS).iterdir())), is_folder=False)


def shard_name(index: int) -> str:
    """The name under which the index-th shard of an upload is kept: never one that the caller chose."""
    return f"{index:06d}.tar"


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
        with _held(self.work / (dataset_id + _LOCK)):
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


@contextmanager
def _held(file: Path) -> Iterator[None]:
    """Hold the lock that `file` stands for; the file is removed with it.

    The kernel drops an flock with the process that held it: no process number that another may have by now, no clock,
    and no matter whether the processes share a container. filelock leaves a file for every id that was ever locked.

    Raises: StorageFull; DatasetBusy, at once, when another process or thread holds it.
    """
    descriptor = _acquire(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: whoever opens the name next makes a new file
        os.close(descriptor)


def _acquire(file: Path) -> int:
    while True:
        with storage_errors():
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(file, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise DatasetBusy(
                "The data set is being received, checked or removed; try again later."
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed it between our opening and our locking


def _is(file: Path, descriptor: int) -> bool:
    """Is the open file still the one of that name?"""
    try:
        return os.path.samestat(os.stat(file, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn what the system says of a full disk into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull from error
        raise


def create_file(path: Path) -> BinaryIO:
    """A new file to write to, unbuffered; never one that is there, nor one that a link leads to.

    Raises: FileExistsError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o644), "wb", buffering=0)


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write every byte: an unbuffered file may take fewer than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
