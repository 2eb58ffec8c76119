"""An archive becomes a folder, whole, or nothing of it stays."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.datasets.archive import read_archive
from app.datasets.disk import create_file, storage_errors, write_all
from app.datasets.errors import ArchiveTooLarge, DuplicateMember, InvalidArchive
from app.datasets.limits import ArchiveLimits
from app.datasets.members import Member
from app.datasets.names import NameBook, is_clutter, member_parts

Progress = Callable[[int, int], None]
"""Called with (files, bytes) unpacked so far. What it raises ends the unpacking, and nothing is left."""


@dataclass(frozen=True)
class Unpacked:
    """What was written. `clutter` counts the files that macOS adds to archives, which are left out."""

    files: int
    size_bytes: int
    clutter: int


def unpack(
    archive: Path, target: Path, limits: ArchiveLimits = ArchiveLimits(), *, progress: Progress | None = None
) -> Unpacked:
    """Unpack a tar, tar.gz or zip file into `target`, which must not exist yet.

    Owners, permissions and times are not taken over. Archives within stay as they are. The files are not
    synced to the disk: `Claim.publish` does that at once for all.

    Raises: EmptyUpload, InvalidArchive, StorageFull, FileExistsError (`target`). Nothing is left then.
    """
    target.mkdir()
    with _removed_on_failure(target), storage_errors(), archive.open("rb") as file:
        writer = _Writer(target, limits, progress)
        for member in read_archive(file, limits):
            writer.take(member)
        return writer.result()


def content_root(folder: Path) -> Path:
    """Where the data begin: below folders that hold nothing but one folder, as archives of a folder have."""
    while True:
        entries = list(_first_two(folder))
        if len(entries) != 1 or entries[0].is_symlink() or not entries[0].is_dir():
            return folder
        folder = entries[0]


def _first_two(folder: Path) -> Iterator[Path]:
    for count, entry in enumerate(folder.iterdir(), start=1):
        yield entry
        if count == 2:
            return


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # the first error is the one to tell
        raise


class _Writer:
    """Writes members below a folder within the limits, of which the bytes written decide."""

    def __init__(self, target: Path, limits: ArchiveLimits, progress: Progress | None) -> None:
        self._target = target
        self._limits = limits
        self._progress = progress
        self._names = NameBook(limits)
        self._made = target
        self._files = self._bytes = self._clutter = 0

    def take(self, member: Member) -> None:
        parts = member_parts(member.name, self._limits, is_folder=member.is_folder)
        self._check_size(member, member.size_bytes)
        if not parts:
            return
        self._names.add(parts, is_folder=member.is_folder)
        if is_clutter(parts):
            self._clutter += not member.is_folder
            self._bytes += member.size_bytes
            return
        path = self._target.joinpath(*parts)
        if member.is_folder:
            path.mkdir(parents=True, exist_ok=True)
            return
        if path.parent != self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made = path.parent
        self._write(member, path)
        self._files += 1
        if self._progress is not None:
            self._progress(self._files, self._bytes)

    def result(self) -> Unpacked:
        if self._files == 0:
            raise InvalidArchive("The archive holds no files; pack the data set's files.")
        return Unpacked(self._files, self._bytes, self._clutter)

    def _write(self, member: Member, path: Path) -> None:
        try:
            file = create_file(path)
        except FileExistsError:
            raise DuplicateMember(
                "the disk takes another name for the same; rename one.", member=member.name
            ) from None
        written = 0
        with file:
            for chunk in member.content:
                written += len(chunk)
                self._check_size(member, written)
                write_all(file, chunk)
        self._bytes += written

    def _check_size(self, member: Member, size_bytes: int) -> None:
        if size_bytes > self._limits.max_file_bytes:
            raise ArchiveTooLarge(
                f"has more than the {self._limits.max_file_bytes} bytes that a file may have; make it smaller.",
                member=member.name,
            )
        if self._bytes + size_bytes > self._limits.max_total_bytes:
            raise ArchiveTooLarge(
                f"The archive unpacks to more than the {self._limits.max_total_bytes} bytes allowed; send less."
            )
