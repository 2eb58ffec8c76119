"""WebDataset shards: kept as the tar files that they are, once their entries are found safe."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.datasets.archive import SNIFF_BYTES, kind_of
from app.datasets.checks import Progress
from app.datasets.errors import ArchiveFormat, ArchiveTooLarge, EmptyUpload, InvalidArchive
from app.datasets.limits import ArchiveLimits
from app.datasets.names import NameBook, member_parts
from app.datasets.sources import PlainSource
from app.datasets.tar import read_tar


@dataclass(frozen=True)
class ShardContent:
    """What a shard holds, by its headers: nothing of the content was read."""

    files: int
    size_bytes: int


def shard_name(index: int) -> str:
    """The name under which the index-th shard of an upload is kept: never one that the caller chose."""
    return f"{index:06d}.tar"


def check_shard(shard: Path, limits: ArchiveLimits = ArchiveLimits()) -> ShardContent:
    """Look at every entry of an uncompressed tar file as `unpack` does, without writing anything.

    Names must be unique within a shard; two shards may have the same.

    Raises: EmptyUpload, InvalidArchive.
    """
    names = NameBook(limits)
    files = size_bytes = 0
    with shard.open("rb") as file:
        if kind_of(file.read(SNIFF_BYTES)) != "tar":
            raise ArchiveFormat(
                "A shard must be a tar file without compression; unpack its compression first."
            )
        file.seek(0)
        for member in read_tar(PlainSource(file)):
            parts = member_parts(member.name, limits, is_folder=member.is_folder)
            if parts:
                names.add(parts, is_folder=member.is_folder)
            if member.size_bytes > limits.max_file_bytes:
                raise ArchiveTooLarge(
                    f"has {member.size_bytes} bytes; a file may have {limits.max_file_bytes}.",
                    member=member.name,
                )
            files += not member.is_folder
            size_bytes += member.size_bytes
    if files == 0:
        raise InvalidArchive("The shard holds no files; send shards with samples.")
    return ShardContent(files, size_bytes)


def check_shards(
    shards: Sequence[Path], limits: ArchiveLimits = ArchiveLimits(), *, progress: Progress | None = None
) -> ShardContent:
    """Look at every shard. `max_entries` is each shard's, since nothing is unpacked.

    Raises: EmptyUpload and InvalidArchive, whose `index` is the shard's.
    """
    found: list[ShardContent] = []
    for index, shard in enumerate(shards):
        try:
            found.append(check_shard(shard, limits))
        except (EmptyUpload, InvalidArchive) as error:
            error.index = index
            raise
        if progress is not None:
            progress(index + 1, len(shards))
    return ShardContent(sum(each.files for each in found), sum(each.size_bytes for each in found))


def check_tars_within(
    folder: Path,
    files: Iterable[Path],
    limits: ArchiveLimits = ArchiveLimits(),
    *,
    progress: Progress | None = None,
) -> None:
    """Hold the tar files among a folder's to what shards are held to: they are read where they lie, too.

    Raises: InvalidArchive, whose `member` is the tar file's path from the folder.
    """
    # Not the hidden ones, which nobody reads.
    tars = sorted(file for file in files if file.suffix == ".tar" and file.name[0] != "." and file.is_file())
    for done, tar in enumerate(tars, start=1):
        try:
            check_shard(tar, limits)
        except (EmptyUpload, InvalidArchive) as error:
            named = InvalidArchive(error.message, member=os.path.relpath(tar, folder))
            named.code = error.code
            raise named from error
        if progress is not None:
            progress(done, len(tars))
