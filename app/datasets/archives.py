"""Reads untrusted tar, tar.gz and zip archives with the standard library, within limits of our own.

tarfile and zipfile find and decode the entries. This module refuses what they would accept
(docs/decisions/0026-archives-by-the-standard-library.md): entries that are not plain files or folders,
unbounded headers and directories, entries that share bytes, a damaged header mistaken for the end, and data
after the end.
"""

import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, BinaryIO, Literal, cast

from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.names import decode_name, unsafe
from sds_clip.app.errors import ArchiveTooLarge, EmptyUpload, InvalidArchive

_damaged = partial(InvalidArchive, code="archive_damaged")
_truncated = partial(
    InvalidArchive, "The archive ends too early; send the whole file.", code="archive_truncated"
)
_unusual = partial(InvalidArchive, code="archive_format")

Kind = Literal["tar", "tar.gz", "zip"]
SNIFF_BYTES = tarfile.BLOCKSIZE
"""How many bytes at the start of a file are needed to recognise its kind."""

_CHUNK = 256 * 1024
_GZIP_CHUNK = 16 * 1024  # small, because what follows a member is copied, and a member may have 20 bytes
# At 64 KiB a member, as bgzip writes them, this is enough for 64 GB.
_MAX_GZIP_MEMBERS = 1_000_000
_MAX_HEADER_BYTES = 2**20  # for one tar entry and its extended headers, which tarfile reads into memory
_MAX_PADDING_BYTES = 2**20  # zeros that fill the last record of a tape
_MAX_DIRECTORY_BYTES = 2**27  # zipfile reads the directory into memory: 268 bytes for each of 500,000 entries
# What each block counts for: tarfile copies global headers for every further header.
_LEAST_HEADER_BYTES = 2**14
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_RECORD, _LONG_NUMBER = re.compile(rb"([0-9]{1,9}) "), re.compile(rb"[0-9]{256}")
_SPARSE = ("GNU.sparse.", "SCHILY.realsize", "SUN.holesdata")
# Zip's end record and its 64-bit counterpart, each from the disks' numbers on; and a local header's two lengths.
_END, _END64, _LOCAL = struct.Struct("<4x4H2LH"), struct.Struct("<16x2L4Q"), struct.Struct("<26x2H")
_LOCATOR_BYTES = 20  # between the two end records
# General-purpose flags for encryption, strong encryption and masked headers; 99 is the "method" of AES.
_ENCRYPTED, _AES = 0x0001 | 0x0040 | 0x2000, 99
_DOS_FOLDER = 0x10
# Formats that are named in the refusal, so that the message can say what the file is.
_OTHERS = (
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\x89HDF", "HDF5"),
    (b"PAR1", "Parquet"),
)


@dataclass(frozen=True)
class Member:
    """A file or a folder. `content` can be read until the next member is requested, or left unread."""

    name: str
    is_folder: bool
    size_bytes: int
    """The size that the archive states. `content` never yields more, but a zip's may yield less."""
    content: Iterator[bytes]


def kind_of(head: bytes) -> Kind:
    """The kind of the archive that begins with `head`, judged by content and never by file name.

    Raises: EmptyUpload, InvalidArchive.
    """
    if not head:
        raise EmptyUpload("The upload has no bytes; send the content of the archive.", param="file")
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if head.startswith(b"\x1f\x8b\x08"):
        return "tar.gz"
    if _is_tar(head):
        return "tar"
    found = next((f" (its content is {name})" for magic, name in _OTHERS if head.startswith(magic)), "")
    raise _unusual(f"The file is not a tar, tar.gz or zip archive{found}; pack the files as one of these.")


def check_is_tar(head: bytes) -> None:
    """Check a shard, which begins with `head`. Raises: EmptyUpload, InvalidArchive."""
    if kind_of(head) != "tar":
        raise _unusual("A shard must be an uncompressed tar file; decompress it first.")


def read_archive(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """Yield the files and folders of an archive that is open at its beginning.

    Raises: EmptyUpload, InvalidArchive.
    """
    kind = kind_of(file.read(SNIFF_BYTES))
    file.seek(0)
    if kind == "zip":
        return _read_zip(file, limits)
    if kind == "tar":
        return read_tar(file)
    if not _is_tar(Forwards(_gunzip(file, limits)).read(SNIFF_BYTES)):
        raise _unusual("The gzip file does not contain a tar archive; pack the files as tar.gz.")
    file.seek(0)
    return read_tar(Forwards(_gunzip(file, limits)))


class Forwards:
    """What arrives piece by piece, as a file in which one may only go forwards."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ready = bytearray()
        self._offset = 0

    def read(self, size: int) -> bytes:
        while len(self._ready) < size and (piece := next(self._pieces, None)) is not None:
            self._ready += piece
        data = bytes(self._ready[:size])
        del self._ready[:size]
        self._offset += len(data)
        return data

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int) -> None:
        while (gap := offset - self._offset) > 0 and self.read(min(gap, _CHUNK)):
            pass


def read_tar(file: BinaryIO | Forwards) -> Iterator[Member]:
    """Yield the files and folders of an uncompressed tar file. Unused contents are skipped, not read.

    Raises: InvalidArchive.
    """
    while (header := _next_header(file)) is not None:
        name = decode_name(header.name.encode("utf-8", "surrogateescape"))
        _check_tar_entry(header, name)
        following = file.tell() + header.size + -header.size % tarfile.BLOCKSIZE
        yield Member(name, header.isdir() or name.endswith("/"), header.size, _tar_content(file, header.size))
        file.seek(following)
    _check_padding(file)


def _gunzip(file: BinaryIO, limits: ArchiveLimits) -> Iterator[bytes]:
    """Yield the content of a gzip file: of its members, which zeros may follow.

    Their number is limited, because members without output cost time, and no limit on the output stops them.
    """
    packed = b""
    unpacked_bytes = 0
    with _refusals():
        for _ in range(_MAX_GZIP_MEMBERS):
            member = zlib.decompressobj(wbits=31)  # that is gzip's, with its checksum
            while not member.eof:
                if not (packed := packed or file.read(_GZIP_CHUNK)):
                    raise EOFError
                piece = member.decompress(packed, _CHUNK)
                packed = member.unconsumed_tail
                unpacked_bytes += len(piece)
                limits.check_ratio(file.tell(), unpacked_bytes)
                yield piece
            packed = member.unused_data
            while not (packed := packed.lstrip(b"\0")):
                if not (packed := file.read(_GZIP_CHUNK)):
                    return
            if packed[0] != 0x1F:
                raise _damaged("There is data after the end of the gzip file; pack it again.")
    raise _damaged("The gzip file has too many members; pack the files again.")


def _is_tar(head: bytes) -> bool:
    """Whether `head` is a tar header, or the zeros of an empty archive."""
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return len(head) >= tarfile.BLOCKSIZE and not head[: tarfile.BLOCKSIZE].strip(b"\0")
    return True


@contextmanager
def _refusals(member: str | None = None) -> Iterator[None]:
    """Turn the libraries' errors, including those that hostile headers provoke, into refusals."""
    try:
        yield
    except EOFError:
        raise _truncated() from None
    except NotImplementedError:
        raise _unusual(
            "The zip archive is of an unusual kind; pack it again with a common zip program.", member=member
        ) from None
    except UnicodeDecodeError as error:
        decode_name(error.object)
        raise
    except MemoryError:
        raise ArchiveTooLarge(
            "The archive's headers need more memory than a check may use; pack the files without extended "
            "attributes, or send WebDataset shards."
        ) from None
    except (zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise _damaged(f"The archive is damaged ({error}); pack it again.", member=member) from None
    except (ArithmeticError, LookupError, ValueError, RecursionError):
        raise _damaged("The archive's headers contradict each other; pack it again.", member=member) from None


class _Headers:
    """The headers of one entry, as the file that tarfile reads them from.

    tarfile reads them into memory, however large they claim to be, so there is a limit to what it gets.
    """

    def __init__(self, file: BinaryIO | Forwards) -> None:
        self._file = file
        self._taken = 0
        self.last = b""

    def tell(self) -> int:
        return self._taken

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES - self._taken:
            raise MemoryError
        self._taken += max(size, _LEAST_HEADER_BYTES)
        has_records = size > tarfile.BLOCKSIZE and self.last[156:157] in _PAX_TYPES
        self.last = self._file.read(size)
        if has_records:
            _check_records(self.last)
        return self.last


def _check_records(header: bytes) -> None:
    """Refuse a pax header that tarfile, before 3.11.10, searches for hours (CVE-2024-6232) or copies for gigabytes.

    Its time is quadratic in the length of a number. For each record it copies all up to the next "=", which
    may stand far behind the record.
    """
    end = 0
    while record := _RECORD.match(header, end):
        end += int(record[1])
        if b"=" not in header[record.end() : end]:
            raise _damaged("A header has a record without a value; pack the archive again.")
    if _LONG_NUMBER.search(header):
        raise _damaged("A header contains a number that does not end; pack the archive again.")


def _next_header(file: BinaryIO | Forwards) -> tarfile.TarInfo | None:
    """The next entry's header, or None at the end.

    Each entry has a TarFile of its own, because one for all would keep every header in memory. It raises
    ReadError where one for all would take a damaged header for the end.

    Raises: InvalidArchive.
    """
    headers = _Headers(file)
    with _refusals():
        try:
            archive = tarfile.TarFile(fileobj=cast(IO[bytes], headers), encoding="utf-8")
        except tarfile.ReadError:
            if len(headers.last) < tarfile.BLOCKSIZE or not headers.last.strip(b"\0"):
                raise _truncated() from None
            raise _damaged(
                "The tar archive is damaged, or something other than tar follows in it; pack it again."
            ) from None
    # Global comments are accepted, because git writes them; a global name or size is not.
    if any(key in ("path", "size") or key.startswith(_SPARSE) for key in archive.pax_headers):
        raise _damaged("A global header sets the name or size of every file; pack the archive again.")
    return archive.next()


def _tar_content(file: BinaryIO | Forwards, size: int) -> Iterator[bytes]:
    while size:
        if not (piece := file.read(min(size, _CHUNK))):
            raise _truncated()
        size -= len(piece)
        yield piece


def _check_padding(file: BinaryIO | Forwards) -> None:
    """Raise InvalidArchive unless only zeros follow, and not too many."""
    padding = 0
    while chunk := file.read(_CHUNK):
        padding += len(chunk)
        if chunk.strip(b"\0") or padding > _MAX_PADDING_BYTES:
            raise _damaged("There is data after the end of the tar archive; pack it again.")


def _check_tar_entry(header: tarfile.TarInfo, name: str) -> None:
    reason = None
    if header.issym() or header.islnk():
        reason = "the entry is a link; pack the files themselves (tar --dereference --hard-dereference)."
    elif header.isdev():
        reason = "the entry is a device or a pipe; leave it out."
    elif header.issparse() or any(key.startswith(_SPARSE) for key in header.pax_headers):
        reason = "the entry is a sparse file; pack the archive without --sparse."
    elif not header.isreg() and not header.isdir():
        reason = f"the entry is of an unknown type ({header.type!r}); pack plain files."
    if reason is not None:
        raise unsafe(reason, member=name)
    if header.size < 0 or (header.size and (header.isdir() or name.endswith("/"))):
        raise _damaged(
            "the entry has a negative size, or is a folder with content; pack it again.", member=name
        )


def _read_zip(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    with _refusals():
        directory_offset, count = _find_directory(file, limits)
        # Names are read as UTF-8 even if the archive does not say so: macOS packs them that way.
        archive = zipfile.ZipFile(file, metadata_encoding="utf-8")
        entries = archive.infolist()
        if len(entries) != count:
            raise zipfile.BadZipFile("the directory does not have the number of entries that it states")
        _check_zip_sizes(entries, limits)
        _check_overlaps(file, entries, directory_offset)
    for entry in entries:
        # zipfile cuts `filename` at the first NUL; `orig_filename` is the name in the archive.
        name = entry.orig_filename
        is_folder = name.endswith("/")
        _check_zip_entry(entry, name, is_folder)
        yield Member(name, is_folder, entry.file_size, _zip_content(archive, entry))


def _zip_content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    with _refusals(entry.orig_filename), archive.open(entry) as file:
        while piece := file.read(_CHUNK):
            yield piece


def _find_directory(file: BinaryIO, limits: ArchiveLimits) -> tuple[int, int]:
    """Find the directory's offset and stated number of entries, before zipfile reads all of it into memory.

    The end records are where zipfile expects them; an archive in which it might find others is refused.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - _LOCATOR_BYTES - _END.size - 0xFFFF))
    tail = file.read()
    found = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    if found < 0:
        raise _truncated()
    *disks, here, count, size, offset, comment_bytes = _END.unpack_from(tail, found)
    after = len(tail) - found - _END.size - comment_bytes
    if after < 0:
        raise _truncated()
    if after:
        raise _damaged("There is data after the end of the zip archive; pack it again.")
    end += found - len(tail)
    if tail[max(0, found - _LOCATOR_BYTES) :].startswith(b"PK\6\7"):
        end -= _LOCATOR_BYTES + _END64.size
        file.seek(max(0, end))
        *disks, here, count, size, offset = _END64.unpack(file.read(_END64.size))
    if any(disks) or here != count:
        raise _unusual("The zip archive is split into several files; pack it as one file.")
    if offset + size != end:
        raise zipfile.BadZipFile("the directory is not at the position that the archive states")
    limits.check_entries(count)
    if size > _MAX_DIRECTORY_BYTES:
        raise MemoryError
    file.seek(offset)
    if file.read(size).count(b"PK\1\2") > limits.max_entries:
        raise zipfile.BadZipFile("the directory has more entries than it states")
    return offset, count


def _check_zip_sizes(entries: Sequence[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    """Refuse an archive that states too large a size, before anything is written. False sizes show later."""
    for entry in entries:
        limits.check_file(entry.orig_filename, entry.file_size)
    unpacked_bytes = sum(entry.file_size for entry in entries)
    limits.check_total(len(entries), unpacked_bytes)
    limits.check_ratio(sum(entry.compress_size for entry in entries), unpacked_bytes)


def _check_overlaps(file: BinaryIO, entries: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Refuse entries that share bytes, which zipfile itself refuses only from 3.11.8 on (CVE-2024-0450).

    By sharing bytes, a small zip can unpack to terabytes without a suspicious ratio.
    """
    for entry in sorted(entries, key=lambda entry: entry.header_offset, reverse=True):
        file.seek(entry.header_offset)
        lengths = _LOCAL.unpack(file.read(_LOCAL.size))
        if entry.header_offset + _LOCAL.size + sum(lengths) + entry.compress_size > end:
            raise _damaged(
                "the entry overlaps another entry, or lies outside the archive; pack it again.",
                member=entry.orig_filename,
            )
        end = entry.header_offset


def _check_zip_entry(entry: zipfile.ZipInfo, name: str, is_folder: bool) -> None:
    """Refuse unusable entries.

    The Unix mode reveals a link or a device, whichever system the entry claims to come from.
    """
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise unsafe("the entry is a link; pack the files themselves.", member=name)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unsafe("the entry is a device or a pipe; leave it out.", member=name)
    says_folder = kind == stat.S_IFDIR or bool(entry.external_attr & _DOS_FOLDER)
    if (says_folder and not is_folder) or (is_folder and (entry.file_size or kind == stat.S_IFREG)):
        raise _damaged("the entry is both a file and a folder; pack the archive again.", member=name)
    if entry.flag_bits & _ENCRYPTED or entry.compress_type == _AES:
        raise InvalidArchive(
            "the entry is encrypted; pack the files without a password.",
            code="archive_encrypted",
            member=name,
        )
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _unusual(
            f"the entry is compressed with method {entry.compress_type}; use the common method, deflate.",
            member=name,
        )
