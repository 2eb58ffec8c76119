"""Reads untrusted tar, tar.gz and zip archives with the standard library, within limits of our own.

tarfile and zipfile find and decode the entries. This module refuses what they would accept
(docs/decisions/0026-archives-by-the-standard-library.md): entries that are not plain files or folders,
unbounded headers and directories, entries that share bytes, a damaged header mistaken for the end, and data
after the end.
"""

import gzip
import io
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import IO, BinaryIO, Literal, cast

from sds_clip.app.datasets.limits import ArchiveLimits
from sds_clip.app.datasets.names import decode_name
from sds_clip.app.errors import (
    ArchiveDamaged,
    ArchiveEncrypted,
    ArchiveFormat,
    ArchiveTooLarge,
    ArchiveTruncated,
    EmptyUpload,
    UnsafeMember,
)

Kind = Literal["tar", "tar.gz", "zip"]
SNIFF_BYTES = tarfile.BLOCKSIZE
"""How many bytes at the start of a file are needed to recognise its kind."""

_CHUNK = 256 * 1024
# At 64 KiB a member, as bgzip writes them, this is enough for 64 GB.
_MAX_GZIP_MEMBERS = 1_000_000
_MAX_HEADER_BYTES = 2**20  # for one tar entry and its extended headers, which tarfile reads into memory
_MAX_PADDING_BYTES = 2**20  # zeros that fill the last record of a tape
_MAX_DIRECTORY_BYTES = 2**27  # zipfile reads the directory into memory: 268 bytes for each of 500,000 entries
_LONG_NUMBER = re.compile(rb"[0-9]{256}")
_SPARSE = ("GNU.sparse.", "SCHILY.realsize", "SUN.holesdata")
# Sizes of zip's end record and of its 64-bit counterpart with locator, and a local header's two lengths.
_END_BYTES, _END64_BYTES, _LOCAL = 22, 76, struct.Struct("<26x2H")
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

    Raises: EmptyUpload, ArchiveFormat.
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
    raise ArchiveFormat(
        f"The file is not a tar, tar.gz or zip archive{found}; pack the files as one of these."
    )


def read_archive(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """Yield the files and folders of an archive that is open at its beginning.

    Raises: EmptyUpload, InvalidArchive.
    """
    kind = kind_of(file.read(SNIFF_BYTES))
    file.seek(0)
    if kind == "zip":
        return _read_zip(file, limits)
    if kind == "tar":
        return read_tar(file, limits)
    if not _is_tar(_Source(_gunzipped(file), file, limits).read(SNIFF_BYTES)):
        raise ArchiveFormat("The gzip file does not contain a tar archive; pack the files as tar.gz.")
    file.seek(0)
    return _read_tar(_Source(_gunzipped(file), file, limits))


def read_tar(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """Yield the files and folders of an uncompressed tar file. Unused contents are skipped, not read.

    Raises: InvalidArchive.
    """
    return _read_tar(_Source(file, file, limits))


class _GzipReader(gzip._GzipReader):
    """What `GzipFile` reads with, for a bounded number of members.

    Members without output cost time, and neither the caps nor the ratio would ever stop them.
    """

    _members = 0

    def _read_gzip_header(self) -> bool:
        self._members += 1
        if self._members > _MAX_GZIP_MEMBERS:
            raise ArchiveDamaged("The gzip file has too many members; pack the files again.")
        return bool(super()._read_gzip_header())  # type: ignore[misc]


def _gunzipped(file: BinaryIO) -> IO[bytes]:
    return cast(IO[bytes], io.BufferedReader(_GzipReader(file)))


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
    except (EOFError, tarfile.ReadError):
        raise ArchiveTruncated from None
    except NotImplementedError:
        raise ArchiveFormat(
            "The zip archive is of an unusual kind; pack it again with a common zip program.", member=member
        ) from None
    except UnicodeDecodeError as error:
        decode_name(error.object)
        raise
    except MemoryError:
        raise ArchiveTooLarge(
            "The archive's headers need more memory than a check may use; send WebDataset shards instead."
        ) from None
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise ArchiveDamaged(f"The archive is damaged ({error}); pack it again.", member=member) from None
    except (ArithmeticError, LookupError, ValueError, RecursionError):
        raise ArchiveDamaged(
            "The archive's headers contradict each other; pack it again.", member=member
        ) from None


def _pieces(open_member: Callable[[], IO[bytes] | None], name: str) -> Iterator[bytes]:
    with _refusals(name):
        file = open_member()
        assert file is not None
        with file:
            while piece := file.read(_CHUNK):
                yield piece


class _Source:
    """The file that tarfile reads, only forwards: a tar file, or the output of gzip.

    It yields no more bytes than announced beforehand. No header is therefore read into memory in full,
    however large it claims to be.
    """

    def __init__(self, file: IO[bytes], packed: BinaryIO, limits: ArchiveLimits) -> None:
        self._file = file
        self._packed = packed
        self._limits = limits
        self._last = b""
        self.expect_header()

    def expect_header(self) -> None:
        self._allowed = _MAX_HEADER_BYTES
        self._in_header = True

    def expect_content(self, size: int) -> None:
        self._allowed = size
        self._in_header = False

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._allowed:
            raise ArchiveTooLarge(
                f"The headers of an entry have more than {_MAX_HEADER_BYTES} bytes, which is the limit. "
                "Pack the archive without extended attributes."
            )
        self._allowed -= size
        self._last = self._read(size)
        # tarfile takes time quadratic in the length of a number to search a pax header (CVE-2024-6232).
        if self._in_header and size > tarfile.BLOCKSIZE and _LONG_NUMBER.search(self._last):
            raise ArchiveDamaged("A header contains a number that does not end; pack the archive again.")
        return self._last

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> None:
        if self._file is self._packed:
            self._file.seek(offset)
            return
        while (gap := offset - self.tell()) > 0 and self._read(min(gap, _CHUNK)):
            pass

    def check_end(self) -> None:
        """Check that the last header read was the zeros that end an archive.

        tarfile also treats a damaged header as the end.

        Raises: ArchiveTruncated, ArchiveDamaged.
        """
        if len(self._last) < tarfile.BLOCKSIZE:
            raise ArchiveTruncated
        if self._last.strip(b"\0"):
            raise ArchiveDamaged(
                "The tar archive is damaged, or something other than tar follows in it; pack it again."
            )

    def check_padding(self) -> None:
        """Raise ArchiveDamaged unless only zeros follow, and not too many."""
        padding = 0
        while chunk := self._read(_CHUNK):
            padding += len(chunk)
            if chunk.strip(b"\0") or padding > _MAX_PADDING_BYTES:
                raise ArchiveDamaged("There is data after the end of the tar archive; pack it again.")

    def _read(self, size: int) -> bytes:
        with _refusals():
            data = self._file.read(size)
        if self._file is not self._packed:
            self._limits.check_ratio(self._packed.tell(), self._file.tell())
        return data


def _read_tar(source: _Source) -> Iterator[Member]:
    with _reading_header(source):
        # The caller owns the file and closes it.
        archive = tarfile.open(fileobj=cast(IO[bytes], source), mode="r:", encoding="utf-8")  # noqa: SIM115
    while (header := _next_header(archive, source)) is not None:
        name = decode_name(header.name.encode("utf-8", "surrogateescape"))
        _check_tar_entry(header, name)
        is_folder = header.isdir() or name.endswith("/")
        source.expect_content(header.size)
        yield Member(name, is_folder, header.size, _pieces(partial(archive.extractfile, header), name))
    source.check_padding()


@contextmanager
def _reading_header(source: _Source) -> Iterator[None]:
    source.expect_header()
    with _refusals():
        try:
            yield
        except tarfile.ReadError:
            source.check_end()
            raise


def _next_header(archive: tarfile.TarFile, source: _Source) -> tarfile.TarInfo | None:
    with _reading_header(source):
        header = archive.next()
    if header is None:
        source.check_end()
        return None
    archive.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them in memory
    # Global comments are accepted, because git writes them; a global name or size is not.
    if any(key in ("path", "size") or key.startswith(_SPARSE) for key in archive.pax_headers):
        raise ArchiveDamaged("A global header sets the name or size of every file; pack the archive again.")
    archive.pax_headers = {}  # global headers would accumulate over the archive
    return header


def _check_tar_entry(header: tarfile.TarInfo, name: str) -> None:
    if header.issym() or header.islnk():
        raise UnsafeMember(
            "the entry is a link; pack the files themselves (tar --dereference --hard-dereference).",
            member=name,
        )
    if header.isdev():
        raise UnsafeMember("the entry is a device or a pipe; leave it out.", member=name)
    if header.issparse() or any(key.startswith(_SPARSE) for key in header.pax_headers):
        raise UnsafeMember("the entry is a sparse file; pack the archive without --sparse.", member=name)
    if not header.isreg() and not header.isdir():
        raise UnsafeMember(
            f"the entry is of an unknown type ({header.type!r}); pack plain files.", member=name
        )
    if header.size < 0 or (header.size and (header.isdir() or name.endswith("/"))):
        raise ArchiveDamaged(
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
        yield Member(name, is_folder, entry.file_size, _pieces(partial(archive.open, entry), name))


def _find_directory(file: BinaryIO, limits: ArchiveLimits) -> tuple[int, int]:
    """Find the directory's offset and stated number of entries, before zipfile reads all of it into memory.

    `_EndRecData` is private, but ZipFile calls it too, so both use the same record.
    """
    try:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    except OSError:
        raise ArchiveTruncated from None
    if end is None:
        raise ArchiveTruncated
    magic, disk, first_disk, here, count, size, offset, comment_bytes, _, place = end
    after = os.fstat(file.fileno()).st_size - place - _END_BYTES - comment_bytes
    if after < 0:
        raise ArchiveTruncated
    if after:
        raise ArchiveDamaged("There is data after the end of the zip archive; pack it again.")
    if disk or first_disk or here != count:
        raise ArchiveFormat("The zip archive is split into several files; pack it as one file.")
    if offset + size != place - (_END64_BYTES if magic == b"PK\6\6" else 0):
        raise zipfile.BadZipFile("the directory is not at the position that the archive states")
    if count > limits.max_entries or size > _MAX_DIRECTORY_BYTES:
        raise ArchiveTooLarge(
            f"The archive states {count} files and folders, in a directory of {size} bytes; the limits are "
            f"{limits.max_entries} and {_MAX_DIRECTORY_BYTES}. Send WebDataset shards instead."
        )
    file.seek(offset)
    if file.read(size).count(b"PK\1\2") > limits.max_entries:
        raise zipfile.BadZipFile("the directory has more entries than it states")
    return offset, count


def _check_zip_sizes(entries: Sequence[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    """Refuse an archive that states too large a size, before anything is written. False sizes show later."""
    total = 0
    for entry in entries:
        total += entry.file_size
        if entry.file_size > limits.max_file_bytes or total > limits.max_total_bytes:
            raise ArchiveTooLarge(
                f"the entry states {entry.file_size} bytes; the limit is {limits.max_file_bytes} bytes for a "
                f"file, and {limits.max_total_bytes} bytes for all files together. Send less.",
                member=entry.orig_filename,
            )
    limits.check_ratio(sum(entry.compress_size for entry in entries), total)


def _check_overlaps(file: BinaryIO, entries: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Refuse entries that share bytes, which zipfile itself refuses only from 3.11.8 on (CVE-2024-0450).

    By sharing bytes, a small zip can unpack to terabytes without a suspicious ratio.
    """
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    starts = [*(entry.header_offset for entry in ordered), end]
    for entry, (start, following) in zip(ordered, pairwise(starts), strict=True):
        file.seek(start)
        name_bytes, extra_bytes = _LOCAL.unpack(file.read(_LOCAL.size))
        if start + _LOCAL.size + name_bytes + extra_bytes + entry.compress_size > following:
            raise ArchiveDamaged(
                "the entry overlaps another entry, or lies outside the archive; pack it again.",
                member=entry.orig_filename,
            )


def _check_zip_entry(entry: zipfile.ZipInfo, name: str, is_folder: bool) -> None:
    """Refuse unusable entries.

    The Unix mode reveals a link or a device, whichever system the entry claims to come from.
    """
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise UnsafeMember("the entry is a link; pack the files themselves.", member=name)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeMember("the entry is a device or a pipe; leave it out.", member=name)
    says_folder = kind == stat.S_IFDIR or bool(entry.external_attr & _DOS_FOLDER)
    if (says_folder and not is_folder) or (is_folder and (entry.file_size or kind == stat.S_IFREG)):
        raise ArchiveDamaged("the entry is both a file and a folder; pack the archive again.", member=name)
    if entry.flag_bits & _ENCRYPTED or entry.compress_type == _AES:
        raise ArchiveEncrypted("the entry is encrypted; pack the files without a password.", member=name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveFormat(
            f"the entry is compressed with method {entry.compress_type}; use the common method, deflate.",
            member=name,
        )
