"""Where a tar archive's bytes come from: the file itself, or what gzip makes of it."""

import os
import zlib
from typing import BinaryIO

from app.datasets.errors import ArchiveDamaged, ArchiveTruncated
from app.datasets.limits import ArchiveLimits
from app.datasets.members import check_ratio, read_chunks

_GZIP = b"\x1f\x8b"
_WITH_GZIP_HEADER = 31
_READ = 64 * 1024
# Block compressors write a stream for every 64 kB; millions of empty ones only keep a processor busy.
_MAX_STREAMS = 1_000_000


class PlainSource:
    """A file as it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes; none at the end."""
        return self._file.read(limit)

    def skip(self, count: int) -> None:
        """Go on by `count` bytes without reading them.

        Raises: ArchiveTruncated.
        """
        if self._file.tell() + count > self._size:
            raise ArchiveTruncated
        self._file.seek(count, os.SEEK_CUR)


class GzipSource:
    """What a gzip file unpacks to: of several streams in it, one after another, as `gunzip` gives it.

    `read` raises ArchiveTruncated, ArchiveDamaged (checksum, something after the end) and ArchiveBomb.
    """

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self._file = file
        self._limits = limits
        self._inflate = zlib.decompressobj(_WITH_GZIP_HEADER)
        self._waiting = b""
        self._streams = 1
        self._packed = 0
        self._unpacked = 0

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes; none at the end."""
        while True:
            if self._inflate.eof and not self._next_stream():
                return b""
            data = self._step(limit)
            if data:
                self._unpacked += len(data)
                check_ratio(self._packed - len(self._waiting), self._unpacked, self._limits)
                return data
            # Nothing came out: what was left of the output is given, and more input is needed.
            if not self._inflate.eof and not self._waiting and not self._fill():
                raise ArchiveTruncated

    def skip(self, count: int) -> None:
        """Unpack `count` bytes and leave them."""
        for _ in read_chunks(self, count):
            pass

    def _step(self, limit: int) -> bytes:
        try:
            data = self._inflate.decompress(self._waiting, limit)
        except zlib.error:
            raise ArchiveDamaged("The gzip data are damaged; compress the archive again.") from None
        self._waiting = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        return data

    def _fill(self) -> bool:
        more = self._file.read(_READ)
        self._packed += len(more)
        self._waiting += more
        return bool(more)

    def _next_stream(self) -> bool:
        """Begin the next stream, if there is one; zeros may pad the file's end."""
        while len(self._waiting) < len(_GZIP) and self._fill():
            pass
        if self._waiting[:2] == _GZIP and self._streams < _MAX_STREAMS:
            self._streams += 1
            self._inflate = zlib.decompressobj(_WITH_GZIP_HEADER)
            return True
        while self._waiting or self._fill():
            if self._waiting.strip(b"\0"):
                raise ArchiveDamaged(
                    "Something follows the end of the gzip data; compress the archive again."
                )
            self._waiting = b""
        return False
