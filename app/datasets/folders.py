"""The layout of data sets on disk, and the removal of what a crash leaves behind.

    ROOT/work/ID.lock     held by the process that is working on the data set
    ROOT/work/ID/         what it is writing or removing; garbage once the lock is free
    ROOT/uploads/ID/      a complete upload that waits for its check
    ROOT/sets/ID/         a checked data set

Everything is written under work/ and renamed into place, so the other folders only hold complete data. The
database decides which folders are live. Its records are created and changed while the lock is held, so an
unlocked upload without a record is garbage, whatever its age. A checked set without a record is kept, because it
may belong to another database.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from sds_clip.app.errors import DatasetBusy, StorageFull
from sds_clip.app.inside import inside
from sds_clip.models.atomic import sync_folder

ARCHIVE = "archive"
"""In an upload's folder: an archive that is to be unpacked."""
SHARDS = "shards"
"""In an upload's or a data set's folder: the folder of shards, each named by `shard_name`."""
FILES = "files"
"""In a data set's folder: the unpacked content of its archive."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LOCK = ".lock"
_NEW, _OLD = "new", "old"
# EFBIG: the file is larger than the file system or the process's limit allows.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Content:
    """Where a data set's files are: one folder, or shards in order."""

    paths: tuple[Path, ...]
    is_folder: bool


def set_content(folder: Path) -> Content:
    """The files in a data set's folder, for training or evaluation.

    Raises: FileNotFoundError.
    """
    files = folder / FILES
    if files.is_dir():
        return Content((files,), is_folder=True)
    return Content(tuple(sorted((folder / SHARDS).iterdir())), is_folder=False)


def shard_name(index: int) -> str:
    """The name under which the index-th shard of an upload is stored, never one chosen by the client."""
    return f"{index:06d}.tar"


class DatasetFolders:
    """The folders of all data sets. They are created if missing, and several processes may share them."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.work, self.uploads, self.sets = (self._root / name for name in ("work", "uploads", "sets"))
        for folder in (self.work, self.uploads, self.sets):
            folder.mkdir(parents=True, exist_ok=True)

    def upload(self, dataset_id: str) -> Path:
        return inside(self.uploads, self.uploads / _checked(dataset_id))

    def content(self, dataset_id: str) -> Path:
        return inside(self.sets, self.sets / _checked(dataset_id))

    @contextmanager
    def claim(self, dataset_id: str, *, wait_s: float = 0.0) -> Iterator["Claim"]:
        """Lock a data set for exclusive work. Its records must be committed within the block.

        Raises: DatasetBusy, after `wait_s`.
        """
        _checked(dataset_id)
        with _held(self.work / (dataset_id + _LOCK), wait_s):
            working = self.work / dataset_id
            _remove(working)
            try:
                with storage_errors():
                    (working / _NEW).mkdir(parents=True)
                yield Claim(self, dataset_id, working)
            finally:
                _remove(working)

    def remove(self, dataset_id: str) -> None:
        """Remove an upload and a data set, which vanish in one step each.

        This is slow for many files, so do not call it on an event loop.

        Raises: DatasetBusy.
        """
        with self.claim(dataset_id) as claim:
            claim.drop_upload()
            claim.drop_set()

    def sweep(self, *, wants_upload: Callable[[str], bool], wants_set: Callable[[str], bool]) -> list[str]:
        """Remove what crashes have left, and return the ids of the affected data sets.

        It is called when a process starts. `wants_upload` and `wants_set` say whether a record needs the
        folder now. They are called under the data set's lock, so a process that has written a folder but not
        yet committed its record loses nothing.
        """

        def unwanted(dataset_id: str) -> tuple[bool, bool]:
            return (
                self.upload(dataset_id).exists() and not wants_upload(dataset_id),
                self.content(dataset_id).exists() and not wants_set(dataset_id),
            )

        swept: list[str] = []
        for dataset_id in self._present():
            left = (self.work / dataset_id).exists()
            # The first look takes no lock, because a lock would disturb the processes that are at work.
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
    """The right to work on one data set.

    `folder` starts empty, is private to this claim, and is removed with it.
    """

    def __init__(self, folders: DatasetFolders, dataset_id: str, working: Path) -> None:
        self.upload, self.content = folders.upload(dataset_id), folders.content(dataset_id)
        self._old = working / _OLD
        self.folder = working / _NEW

    def keep_upload(self) -> None:
        """Turn the content of `folder` into the upload that waits for its check, which leaves `folder` empty.

        The files must be synced to disk, as `receive` leaves them.
        """
        self._replace(self.upload, self.folder)
        self.folder.mkdir()

    def publish(self) -> None:
        """Sync the content of `folder` to disk and turn it into the checked data set.

        An existing one is replaced: a crash may have ended a check after it published its folder, before its
        record.
        """
        with storage_errors():
            # One sync for all files: syncing each takes milliseconds, and there may be half a million.
            os.sync()
        self._replace(self.content, self.folder)

    def publish_upload(self) -> None:
        """Turn the upload, unchanged, into the checked data set."""
        self._replace(self.content, self.upload)

    def drop_upload(self) -> None:
        self._discard(self.upload)

    def drop_set(self) -> None:
        self._discard(self.content)

    def _replace(self, place: Path, folder: Path) -> None:
        self._discard(place)
        with storage_errors():
            sync_folder(folder)
            folder.rename(place)
            sync_folder(place.parent)

    def _discard(self, folder: Path) -> None:
        """Move the folder aside in one step, then remove it file by file."""
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
def _held(file: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock that `file` represents. The file is removed with the lock.

    The kernel releases an flock with the process that held it, so there is no process id that may have been
    reused, no clock, and processes need not share a container. filelock alone would leave a file for every id that
    was ever locked. It refuses a file that was removed between its open and its lock.

    Raises: StorageFull; DatasetBusy if another process or thread still holds the lock after `wait_s`.
    """
    lock = FileLock(file, timeout=wait_s, thread_local=False, fallback_to_soft=False)
    try:
        with storage_errors():
            lock.acquire()
    except Timeout:
        raise DatasetBusy("The data set is being received, checked or deleted; try again later.") from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # still locked here, so that the next process creates a new file
        lock.release()


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn the system's errors for a full disk into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull from error
        raise


def create_file(path: Path) -> BinaryIO:
    """Open a new file for unbuffered writing. It never opens an existing file or follows a link.

    Raises: FileExistsError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o644), "wb", buffering=0)


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write every byte. An unbuffered file may accept fewer than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
