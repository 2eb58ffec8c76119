"""A zip archive's central directory, by which alone its entries are found (APPNOTE.TXT 6.3.10).

Read one entry at a time: the standard library's zipfile reads it whole, and believes it.
"""

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from app.datasets.errors import (
    ArchiveDamaged,
    ArchiveEncrypted,
    ArchiveFormat,
    ArchiveTooLarge,
    ArchiveTruncated,
    UnsafeMember,
)
from app.datasets.limits import ArchiveLimits
from app.datasets.names import decode_name

STORED, DEFLATED = 0, 8
ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # an entry, strongly, or the directory itself
_AES = 99
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_MAX_COMMENT = 0xFFFF
_16, _32 = 0xFFFF, 0xFFFFFFFF
_DOS_FOLDER = 0x10
_DAMAGED = "The zip archive's directory is damaged or contradicts itself; pack it again."


@dataclass(frozen=True)
class Directory:
    """Where the central directory lies, and how many entries it states."""

    offset: int
    size_bytes: int
    entries: int


@dataclass(frozen=True)
class Entry:
    """A file or folder as the directory has it."""

    raw_name: bytes
    name: str
    is_folder: bool
    flags: int
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    offset: int


def find_directory(file: BinaryIO, limits: ArchiveLimits) -> Directory:
    """Find the directory from the archive's end, which must be the file's.

    Raises: ArchiveTruncated, ArchiveDamaged, ArchiveFormat (several disks), ArchiveTooLarge (entries).
    """
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - _END.size - _MAX_COMMENT)
    file.seek(tail_at)
    tail = file.read()
    last = at = tail.rfind(b"PK\5\6")
    while at >= 0 and _after_end(tail, at) != 0:
        at = tail.rfind(b"PK\5\6", 0, at)
    if at < 0:
        if last >= 0 and _after_end(tail, last) > 0:
            raise ArchiveDamaged("Something follows the end of the zip archive; pack it again.")
        raise ArchiveTruncated
    directory, end = _read_end(file, tail, tail_at, at)
    if directory.offset + directory.size_bytes != end:
        raise ArchiveDamaged(_DAMAGED)
    if directory.entries > limits.max_entries:
        raise ArchiveTooLarge(
            f"The archive states {directory.entries} files and folders; {limits.max_entries} at most are allowed. "
            "Send WebDataset shards instead."
        )
    return directory


def _after_end(tail: bytes, at: int) -> int:
    """How many bytes follow the end record at this place and its comment; negative where it is cut."""
    if len(tail) - at < _END.size:
        return -1
    return len(tail) - at - _END.size - int(_END.unpack_from(tail, at)[7])


def _read_end(file: BinaryIO, tail: bytes, tail_at: int, at: int) -> tuple[Directory, int]:
    """The directory, and where it must end: at the first of the end records."""
    _, disk, first_disk, here, entries, size_bytes, offset, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    locator = tail[at - _LOCATOR.size : at] if at >= _LOCATOR.size else b""
    if not locator.startswith(b"PK\6\7"):
        if disk or first_disk or here != entries:
            raise ArchiveFormat("The zip archive is spread over several files; pack it as one.")
        return Directory(offset, size_bytes, entries), end
    _, _, end64, disks = _LOCATOR.unpack(locator)
    if end64 + _END64.size > end - _LOCATOR.size:
        raise ArchiveDamaged(_DAMAGED)
    file.seek(end64)
    magic, length, _, _, disk64, first64, here64, entries64, size64, offset64 = _END64.unpack(
        file.read(_END64.size)
    )
    if magic != b"PK\6\6" or end64 + 12 + length != end - _LOCATOR.size:
        raise ArchiveDamaged(_DAMAGED)
    if disk64 or first64 or disks > 1 or here64 != entries64:
        raise ArchiveFormat("The zip archive is spread over several files; pack it as one.")
    stated = ((entries, entries64, _16), (size_bytes, size64, _32), (offset, offset64, _32))
    if any(small not in (large, sentinel) for small, large, sentinel in stated):
        raise ArchiveDamaged(_DAMAGED)
    return Directory(offset64, size64, entries64), end64


def read_entries(file: BinaryIO, directory: Directory) -> Iterator[Entry]:
    """The directory's entries, exactly as many as it states. Others may move the file between them.

    Raises: InvalidArchive.
    """
    position, end = directory.offset, directory.offset + directory.size_bytes
    for _ in range(directory.entries):
        if position + _ENTRY.size > end:
            raise ArchiveDamaged(_DAMAGED)
        file.seek(position)
        fixed = _ENTRY.unpack(file.read(_ENTRY.size))
        position += _ENTRY.size + sum(fixed[10:13])
        if fixed[0] != b"PK\1\2" or position > end:
            raise ArchiveDamaged(_DAMAGED)
        yield _entry(fixed, name=file.read(fixed[10]), extra=file.read(fixed[11]))
    if position != end:
        raise ArchiveDamaged(_DAMAGED)


def _entry(fixed: tuple[int, ...], name: bytes, extra: bytes) -> Entry:
    _, _, _, flags, method, _, _, crc, packed, size, _, _, _, disk, _, attributes, offset = fixed
    text = decode_name(name)
    size, packed, offset = widen(extra, [size, packed, offset], text)
    entry = Entry(name, text, text.endswith("/"), flags, method, crc, packed, size, offset)
    _check_kind(entry, attributes)
    if disk not in (0, _16):
        raise ArchiveFormat("The zip archive is spread over several files; pack it as one.")
    if flags & ENCRYPTED or method == _AES:
        raise ArchiveEncrypted("is encrypted; pack the files without a password.", member=text)
    if method not in (STORED, DEFLATED):
        raise ArchiveFormat(
            f"is compressed by method {method}; pack with the ordinary method, deflate.", member=text
        )
    if method == STORED and packed != size:
        raise ArchiveDamaged("states two sizes; pack the archive again.", member=text)
    return entry


def _check_kind(entry: Entry, attributes: int) -> None:
    """A link or a device is told by the Unix mode, whichever system the entry says it comes from."""
    kind = stat.S_IFMT(attributes >> 16)
    if kind == stat.S_IFLNK:
        raise UnsafeMember("is a link; pack the files themselves.", member=entry.name)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeMember("is a device or a pipe; leave it out.", member=entry.name)
    folder = kind == stat.S_IFDIR or bool(attributes & _DOS_FOLDER)
    if (folder and not entry.is_folder) or (entry.is_folder and (entry.size_bytes or kind == stat.S_IFREG)):
        raise ArchiveDamaged("is a file and a folder at once; pack the archive again.", member=entry.name)


def widen(extra: bytes, values: list[int], name: str) -> list[int]:
    """Fields of all ones stand in zip64's extra field, in their order.

    Raises: ArchiveDamaged, where it lacks one of them.
    """
    wide = b""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            wide = extra[position + 4 : position + 4 + length]
            break
        position += 4 + length
    found: list[int] = []
    for value in values:
        if value == _32:
            if len(wide) < 8:
                raise ArchiveDamaged("lacks its 64-bit size; pack the archive again.", member=name)
            value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        found.append(value)
    return found
