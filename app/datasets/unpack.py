"""Unpacks an archive into a folder, completely or not at all, and checks shards, which stay tar files."""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.archives import SNIFF_BYTES, Member, check_is_tar, read_archive, read_tar
from sds_clip.app.datasets.folders import create_file, storage_errors, write_all
from sds_clip.app.datasets.names import NameBook, is_clutter, member_parts
from sds_clip.app.errors import EmptyUpload, InvalidArchive

Progress = Callable[[int, int], None]
"""Called during the work with (done, total); total is 0 if unknown. An error that it raises ends the work."""


def unpack(
    archive: Path, target: Path, limits: ArchiveLimits = ArchiveLimits(), *, progress: Progress | None = None
) -> None:
    """Unpack a tar, tar.gz or zip file into `target`, which must not exist yet.

    Owners, permissions and times are not restored. Archives inside the archive stay packed. The files are not
    synced to disk: `Claim.publish` does that once for all of them.

    Raises: EmptyUpload, InvalidArchive, StorageFull, FileExistsError (`target`). Nothing is left then.
    """
    target.mkdir()
    try:
        with storage_errors(), archive.open("rb") as file:
            writer = _Writer(target, limits, progress)
            for member in read_archive(file, limits):
                writer.take(member)
            writer.check_found()
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)  # the first error is the one to report
        raise


def content_root(folder: Path) -> Path:
    """The folder where the data begin: it skips folders that hold nothing but one folder."""
    while True:
        entries = list(islice(folder.iterdir(), 2))
        if len(entries) != 1 or entries[0].is_symlink() or not entries[0].is_dir():
            return folder
        folder = entries[0]


def check_shard(shard: Path, limits: ArchiveLimits = ArchiveLimits()) -> None:
    """Check every entry of an uncompressed tar file as `unpack` does, without writing anything.

    Names must be unique within a shard, but two shards may use the same name.

    Raises: EmptyUpload, InvalidArchive.
    """
    names = NameBook(limits)
    files = 0
    with shard.open("rb") as file:
        check_is_tar(file.read(SNIFF_BYTES))
        file.seek(0)
        for member in read_tar(file):
            names.add(
                member_parts(member.name, limits, is_folder=member.is_folder), is_folder=member.is_folder
            )
            limits.check_file(member.name, member.size_bytes)
            files += not member.is_folder
    if files == 0:
        raise InvalidArchive("The shard contains no files; send shards with samples.")


def check_shards(
    shards: Sequence[Path], limits: ArchiveLimits = ArchiveLimits(), *, progress: Progress | None = None
) -> None:
    """Check every shard. `max_entries` applies to each shard, because nothing is unpacked.

    Raises: EmptyUpload and InvalidArchive, whose `index` is the shard's.
    """
    for index, shard in enumerate(shards):
        try:
            check_shard(shard, limits)
        except (EmptyUpload, InvalidArchive) as error:
            error.index = index
            raise
        if progress is not None:
            progress(index + 1, len(shards))


def check_tars_within(
    folder: Path,
    files: Iterable[Path],
    limits: ArchiveLimits = ArchiveLimits(),
    *,
    progress: Progress | None = None,
) -> None:
    """Check the tar files in a folder by the rules for shards, because they are also read in place.

    Raises: InvalidArchive, whose `member` is the tar file's path relative to the folder.
    """
    # Hidden files are skipped, because nothing reads them.
    tars = sorted(file for file in files if file.suffix == ".tar" and file.name[0] != "." and file.is_file())
    try:
        check_shards(tars, limits, progress=progress)
    except (EmptyUpload, InvalidArchive) as error:
        member = os.path.relpath(tars[error.index or 0], folder)
        raise InvalidArchive(error.message, code=error.code, member=member) from error


class _Writer:
    """Writes members below a folder. The limits apply to the bytes written, not to the stated sizes."""

    def __init__(self, target: Path, limits: ArchiveLimits, progress: Progress | None) -> None:
        self._target = target
        self._limits = limits
        self._progress = progress
        self._names = NameBook(limits)
        self._made = target
        self._files = self._bytes = 0

    def take(self, member: Member) -> None:
        parts = member_parts(member.name, self._limits, is_folder=member.is_folder)
        if not parts:
            return
        self._names.add(parts, is_folder=member.is_folder)
        self._check_size(member, member.size_bytes)
        if is_clutter(parts):
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
            self._progress(self._files, 0)

    def check_found(self) -> None:
        if self._files == 0:
            raise InvalidArchive("The archive contains no files; pack the files of the data set.")

    def _write(self, member: Member, path: Path) -> None:
        try:
            file = create_file(path)
        except FileExistsError:
            raise InvalidArchive(
                "the server's disk takes this name and another one for the same; rename one of the files.",
                code="archive_member_duplicate",
                member=member.name,
            ) from None
        written = 0
        with file:
            for chunk in member.content:
                written += len(chunk)
                self._check_size(member, written)
                write_all(file, chunk)
        if written != member.size_bytes:
            raise InvalidArchive(
                "the entry has less content than the archive states; pack the archive again.",
                code="archive_damaged",
                member=member.name,
            )
        self._bytes += written

    def _check_size(self, member: Member, size_bytes: int) -> None:
        self._limits.check_file(member.name, size_bytes)
        self._limits.check_total(self._names.entries, self._bytes + size_bytes)
