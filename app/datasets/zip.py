"""Zip archives: every entry of the directory, its content checked against what the directory states."""

import struct
import zlib
from array import array
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from app.datasets.errors import ArchiveDamaged, ArchiveTooLarge, ArchiveTruncated
from app.datasets.limits import ArchiveLimits
from app.datasets.members import CHUNK, Member, check_ratio
from app.datasets.zip_directory import (
    DEFLATED,
    ENCRYPTED,
    Directory,
    Entry,
    find_directory,
    read_entries,
    widen,
)

_LOCAL = struct.Struct("<4s5H3L2H")
_SIZES_FOLLOW = 0x0008
_SAME_FLAGS = ENCRYPTED | 0x0800  # and how the name is encoded; programs differ in the others
_RAW_DEFLATE = -15


def read_zip(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """The files and folders in the directory's order, once all of the directory has been looked at.

    Raises: InvalidArchive.
    """
    directory = find_directory(file, limits)
    ends = _Ends(file, directory, limits)
    for entry in read_entries(file, directory):
        yield Member(entry.name, entry.is_folder, entry.size_bytes, _content(file, entry, ends.of(entry)))


class _Ends:
    """Where each entry must end: where the next begins. Entries that share bytes are refused.

    Sharing is how a small zip unpacks to terabytes without a ratio that gives it away.
    """

    def __init__(self, file: BinaryIO, directory: Directory, limits: ArchiveLimits) -> None:
        starts, ends = array("Q"), array("Q")
        packed = total = 0
        for entry in read_entries(file, directory):
            packed += entry.packed_bytes
            total += entry.size_bytes
            _check_stated(entry, total, limits)
            end = entry.offset + _LOCAL.size + len(entry.raw_name) + entry.packed_bytes
            if end > directory.offset:
                raise ArchiveDamaged("lies outside the archive; pack it again.", member=entry.name)
            starts.append(entry.offset)
            ends.append(end)
        check_ratio(packed, total, limits)
        order = np.argsort(np.array(starts, dtype=np.uint64))
        self._starts = np.append(np.array(starts, dtype=np.uint64)[order], np.uint64(directory.offset))
        if np.any(np.array(ends, dtype=np.uint64)[order] > self._starts[1:]):
            raise ArchiveDamaged("Entries of the zip archive share bytes; pack it again.")

    def of(self, entry: Entry) -> int:
        """The end of what belongs to an entry."""
        return int(self._starts[np.searchsorted(self._starts, np.uint64(entry.offset), side="right")])


def _check_stated(entry: Entry, total: int, limits: ArchiveLimits) -> None:
    """Refuse, before anything is written, what states that it is too large. Liars are found later."""
    if entry.size_bytes > limits.max_file_bytes or total > limits.max_total_bytes:
        raise ArchiveTooLarge(
            f"states {entry.size_bytes} bytes; a file may have {limits.max_file_bytes}, and all of them together "
            f"{limits.max_total_bytes}. Send less.",
            member=entry.name,
        )


def _content(file: BinaryIO, entry: Entry, end: int) -> Iterator[bytes]:
    """An entry's bytes: as many as stated, with the checksum stated, or ArchiveDamaged."""
    position = _data_offset(file, entry)
    if position + entry.packed_bytes > end:
        raise ArchiveDamaged("overlaps with another; pack the archive again.", member=entry.name)
    pieces = _pieces(file, position, entry.packed_bytes)
    left, crc = entry.size_bytes, 0
    for chunk in _inflated(pieces, entry) if entry.method == DEFLATED else pieces:
        left -= len(chunk)
        if left < 0:
            break
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if left or crc != entry.crc:
        raise ArchiveDamaged(
            "is not what the archive states (size or checksum); pack it again.", member=entry.name
        )


def _data_offset(file: BinaryIO, entry: Entry) -> int:
    """Where the content begins, once the entry's own header is found to agree with the directory."""
    file.seek(entry.offset)
    block = file.read(_LOCAL.size)
    if len(block) < _LOCAL.size:
        raise ArchiveTruncated
    magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(block)
    name, extra = file.read(name_length), file.read(extra_length)
    agrees = (magic, method, name) == (b"PK\3\4", entry.method, entry.raw_name)
    agrees = agrees and not (flags ^ entry.flags) & _SAME_FLAGS
    if agrees and not flags & _SIZES_FOLLOW:
        size, packed = widen(extra, [size, packed], entry.name)
        agrees = (crc, packed, size) == (entry.crc, entry.packed_bytes, entry.size_bytes)
    if not agrees:
        raise ArchiveDamaged(
            "differs from the archive's directory; pack the archive again.", member=entry.name
        )
    return entry.offset + _LOCAL.size + int(name_length) + int(extra_length)


def _pieces(file: BinaryIO, position: int, count: int) -> Iterator[bytes]:
    """A stretch of the file; others may move the file in between."""
    while count:
        file.seek(position)
        piece = file.read(min(count, CHUNK))
        if not piece:
            raise ArchiveTruncated
        position += len(piece)
        count -= len(piece)
        yield piece


def _inflated(pieces: Iterator[bytes], entry: Entry) -> Iterator[bytes]:
    """The deflate stream unpacked, which must end with its last byte."""
    inflate = zlib.decompressobj(_RAW_DEFLATE)
    try:
        for piece in pieces:
            waiting = piece
            while waiting and not inflate.eof:
                yield inflate.decompress(waiting, CHUNK)
                waiting = inflate.unconsumed_tail
            if inflate.eof and inflate.unused_data:
                break
        while not inflate.eof and (chunk := inflate.decompress(b"", CHUNK)):
            yield chunk
    except zlib.error:
        raise ArchiveDamaged("has damaged content; pack the archive again.", member=entry.name) from None
    if not inflate.eof or inflate.unused_data or next(pieces, b""):
        raise ArchiveDamaged("has content that ends too early or too late; pack it again.", member=entry.name)
