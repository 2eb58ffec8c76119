"""Which kind of archive a file is, by its content and never by its name."""

from collections.abc import Iterator
from typing import BinaryIO, Literal

from app.datasets.errors import ArchiveFormat, EmptyUpload
from app.datasets.limits import ArchiveLimits
from app.datasets.members import Member
from app.datasets.sources import GzipSource, PlainSource
from app.datasets.tar import read_tar
from app.datasets.tar_headers import BLOCK, is_header
from app.datasets.zip import read_zip

Kind = Literal["tar", "tar.gz", "zip"]
SNIFF_BYTES = BLOCK
"""How much of a file's beginning tells its kind."""

_OTHERS = (
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\x89HDF", "HDF5"),
    (b"PAR1", "Parquet"),
)


def kind_of(head: bytes) -> Kind:
    """The kind of the archive that begins so.

    Raises: EmptyUpload, ArchiveFormat.
    """
    if not head:
        raise EmptyUpload("The upload has no bytes; send the archive's content.", param="file")
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if head.startswith(b"\x1f\x8b\x08"):
        return "tar.gz"
    if _is_tar(head):
        return "tar"
    found = next((f" ({name}, by its content)" for magic, name in _OTHERS if head.startswith(magic)), "")
    raise ArchiveFormat(f"The file{found} is no tar, tar.gz or zip archive; pack the files as one of these.")


def read_archive(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """The files and folders of an archive that is open for reading at its beginning.

    Raises: EmptyUpload, InvalidArchive.
    """
    kind = kind_of(file.read(SNIFF_BYTES))
    file.seek(0)
    if kind == "zip":
        return read_zip(file, limits)
    if kind == "tar":
        return read_tar(PlainSource(file))
    head = _head(GzipSource(file, limits))
    if not _is_tar(head):
        raise ArchiveFormat("The gzip file holds no tar archive; pack the files as tar.gz.")
    file.seek(0)
    return read_tar(GzipSource(file, limits))


def _is_tar(head: bytes) -> bool:
    """A header, or the zeros of an archive that is empty."""
    block = head[:BLOCK]
    return is_header(block) or (len(block) == BLOCK and not block.strip(b"\0"))


def _head(source: GzipSource) -> bytes:
    head = b""
    while len(head) < SNIFF_BYTES and (more := source.read(SNIFF_BYTES - len(head))):
        head += more
    return head
