"""Tar archives, read in one pass in memory that does not grow.

The standard library's tarfile is not for strangers' files: it reads extended headers of any size into memory,
keeps every entry, follows sparse maps, and takes a damaged header for the archive's end.
"""

from collections.abc import Iterator

from app.datasets.errors import ArchiveDamaged, ArchiveTooLarge, ArchiveTruncated, UnsafeMember
from app.datasets.members import Member, Source, read_chunks, read_exactly
from app.datasets.names import decode_name
from app.datasets.tar_headers import (
    BLOCK,
    MAX_EXTENDED_BYTES,
    Extended,
    Header,
    long_name,
    read_header,
    read_pax,
    resolve,
)

_FILES = ("0", "7")  # 7 is a file that some systems once laid out in one stretch
_FOLDER = "5"
_LINKS = ("1", "2")
_DEVICES = ("3", "4", "6")
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = "x", "g", "L", "K"
_EXTENDED = (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK)
_MAX_EXTENDED_IN_A_ROW = 8
_MAX_PADDING_BYTES = 2**20  # zeros up to the end of a tape's record


def read_tar(source: Source) -> Iterator[Member]:
    """The files and folders, in their order, up to the end of the archive, after which nothing may follow.

    Raises: InvalidArchive.
    """
    while (header := _next_header(source)) is not None:
        name = decode_name(header.name)
        _check_type(header, name)
        is_folder = header.type == _FOLDER or name.endswith("/")
        if is_folder and header.size_bytes:
            raise ArchiveDamaged("is a folder with content; pack the archive again.", member=name)
        content = _Content(source, header.size_bytes)
        yield Member(name, is_folder, header.size_bytes, iter(content))
        content.leave()


class _Content:
    """An entry's bytes. What of them is not read, `leave` skips, and the padding after them."""

    def __init__(self, source: Source, size_bytes: int) -> None:
        self._source = source
        self._left = size_bytes
        self._padding = -size_bytes % BLOCK

    def __iter__(self) -> Iterator[bytes]:
        for chunk in read_chunks(self._source, self._left):
            self._left -= len(chunk)
            yield chunk

    def leave(self) -> None:
        self._source.skip(self._left + self._padding)


def _next_header(source: Source) -> Header | None:
    """The next entry's header with its extended ones, or None at the archive's end."""
    extended = Extended()
    for _ in range(_MAX_EXTENDED_IN_A_ROW):
        block = read_exactly(source, BLOCK)
        if not block.strip(b"\0"):
            if extended != Extended():
                raise ArchiveTruncated
            _check_end(source)
            return None
        header = read_header(block)
        if header.type not in _EXTENDED:
            return resolve(header, extended)
        _extend(extended, header, source)
    raise ArchiveDamaged("The tar archive has headers that describe no file; pack it again.")


def _extend(extended: Extended, header: Header, source: Source) -> None:
    if header.size_bytes > MAX_EXTENDED_BYTES:
        raise ArchiveTooLarge(
            f"An extended header has {header.size_bytes} bytes; {MAX_EXTENDED_BYTES} at most are allowed. "
            "Pack the archive without extended attributes."
        )
    data = read_exactly(source, header.size_bytes)
    source.skip(-header.size_bytes % BLOCK)
    if header.type == _PAX:
        read_pax(data, extended)
    elif header.type == _PAX_GLOBAL:
        _check_global(data)
    elif header.type == _GNU_NAME:
        extended.gnu_name = long_name(data)


def _check_global(data: bytes) -> None:
    """Let comments pass, which git writes, and refuse what would give every entry one name or size."""
    everywhere = Extended()
    read_pax(data, everywhere)
    if everywhere != Extended():
        raise ArchiveDamaged("A global header sets every file's name or size; pack the archive again.")


def _check_type(header: Header, name: str) -> None:
    if header.type in _LINKS:
        raise UnsafeMember(
            "is a link; pack the files themselves (tar --dereference --hard-dereference).", member=name
        )
    if header.type in _DEVICES:
        raise UnsafeMember("is a device or a pipe; leave it out.", member=name)
    if header.type not in (*_FILES, _FOLDER):
        raise UnsafeMember(f"is of an unknown type ({header.type!r}); pack plain files.", member=name)


def _check_end(source: Source) -> None:
    """Only zeros may follow, and not many."""
    padding = 0
    while chunk := source.read(BLOCK * BLOCK):
        padding += len(chunk)
        if chunk.strip(b"\0") or padding > _MAX_PADDING_BYTES:
            raise ArchiveDamaged("Something follows the end of the tar archive; pack it again.")
