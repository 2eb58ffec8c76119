"""Tar, tar.gz and zip archives of strangers, read by the standard library within limits of our own.

tarfile and zipfile find and decode the entries. What they would let pass is refused here: entries that are no
plain files or folders, headers and directories without end, entries that share bytes, a damaged header taken for the
end, and whatever follows the end.
"""

import gzip
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

from app.datasets.errors import (
    ArchiveDamaged,
    ArchiveEncrypted,
    ArchiveFormat,
    ArchiveTooLarge,
    ArchiveTruncated,
    EmptyUpload,
    UnsafeMember,
)
from app.datasets.limits import ArchiveLimits
from app.datasets.names import decode_name

Kind = Literal["tar", "tar.gz", "zip"]
SNIFF_BYTES = tarfile.BLOCKSIZE
"""How much of a file's beginning tells its kind."""

_CHUNK = 256 * 1024
_MAX_HEADER_BYTES = 2**20  # of one tar entry with its extended headers, which tarfile reads into memory
_MAX_PADDING_BYTES = 2**20  # zeros up to the end of a tape's record
_MAX_DIRECTORY_BYTES = 2**27  # zipfile reads the directory into memory: 268 bytes for each of 500,000 entries
_LONG_NUMBER = re.compile(rb"[0-9]{256}")
_SPARSE = ("GNU.sparse.", "SCHILY.realsize", "SUN.holesdata")
_END_BYTES, _END64_BYTES, _LOCAL = 22, 76, struct.Struct("<26x2H")
_ENCRYPTED, _AES = 0x0001 | 0x0040 | 0x2000, 99
_DOS_FOLDER = 0x10
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
    """A file or a folder. `content` may be read until the next member is asked for, and need not be."""

    name: str
    is_folder: bool
    size_bytes: int
    """As the archive states it. `content` never gives more, but a zip's may give less."""
    content: Iterator[bytes]


def kind_of(head: bytes) -> Kind:
    """The kind of the archive that begins so, by its content and never by its name.

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
        return _read_zip(file, limits)
    if kind == "tar":
        return read_tar(file, limits)
    if not _is_tar(_Source(_gunzipped(file), file, limits).read(SNIFF_BYTES)):
        raise ArchiveFormat("The gzip file holds no tar archive; pack the files as tar.gz.")
    file.seek(0)
    return _read_tar(_Source(_gunzipped(file), file, limits))


def read_tar(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    """The files and folders of an uncompressed tar file; contents that nobody reads are skipped, not read.

    Raises: InvalidArchive.
    """
    return _read_tar(_Source(file, file, limits))


def _gunzipped(file: BinaryIO) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=file))


def _is_tar(head: bytes) -> bool:
    """A header, or the zeros of an archive that is empty."""
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return len(head) >= tarfile.BLOCKSIZE and not head[: tarfile.BLOCKSIZE].strip(b"\0")
    return True


@contextmanager
def _refusals(member: str | None = None) -> Iterator[None]:
    """Turn the libraries' errors, and those over which hostile headers make them stumble, into refusals."""
    try:
        yield
    except (EOFError, tarfile.ReadError):
        raise ArchiveTruncated from None
    except NotImplementedError:
        raise ArchiveFormat(
            "uses an unusual kind of zip; pack it with any zip program again.", member=member
        ) from None
    except UnicodeDecodeError as error:
        decode_name(error.object)
        raise
    except MemoryError:
        raise ArchiveTooLarge(
            "The archive's headers take more memory than a check may use; send WebDataset shards instead."
        ) from None
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise ArchiveDamaged(f"The archive is damaged ({error}); pack it again.", member=member) from None
    except (ArithmeticError, LookupError, ValueError, RecursionError):
        raise ArchiveDamaged(
            "The archive has headers that contradict themselves; pack it again.", member=member
        ) from None


def _pieces(open_member: Callable[[], IO[bytes] | None], name: str) -> Iterator[bytes]:
    with _refusals(name):
        file = open_member()
        assert file is not None
        with file:
            while piece := file.read(_CHUNK):
                yield piece


class _Source:
    """What tarfile reads from, only ever forwards: a tar file, or what gzip makes of one.

    It gives no more than was said before: so no header, however large it claims to be, is read into memory.
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
                f"An entry's headers have more than the {_MAX_HEADER_BYTES} bytes that are allowed. "
                "Pack the archive without extended attributes."
            )
        self._allowed -= size
        self._last = self._read(size)
        # tarfile searches pax headers in a time that grows with the square of a number's length (CVE-2024-6232).
        if self._in_header and size > tarfile.BLOCKSIZE and _LONG_NUMBER.search(self._last):
            raise ArchiveDamaged("A header has a number without end; pack the archive again.")
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
        """Was the last header read the zeros that end an archive? tarfile takes a damaged one for them.

        Raises: ArchiveTruncated, ArchiveDamaged.
        """
        if len(self._last) < tarfile.BLOCKSIZE:
            raise ArchiveTruncated
        if self._last.strip(b"\0"):
            raise ArchiveDamaged(
                "The tar archive is damaged, or no tar archive from some place on; pack it again."
            )

    def check_padding(self) -> None:
        """Raises: ArchiveDamaged, unless only zeros follow, and not many."""
        padding = 0
        while chunk := self._read(_CHUNK):
            padding += len(chunk)
            if chunk.strip(b"\0") or padding > _MAX_PADDING_BYTES:
                raise ArchiveDamaged("Something follows the end of the tar archive; pack it again.")

    def _read(self, size: int) -> bytes:
        with _refusals():
            data = self._file.read(size)
        if self._file is not self._packed:
            self._limits.check_ratio(self._packed.tell(), self._file.tell())
        return data


def _read_tar(source: _Source) -> Iterator[Member]:
    with _reading_header(source):
        # The file is the caller's to close.
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
    archive.members = []  # type: ignore[attr-defined]  # or tarfile keeps them all
    # Comments pass, which git writes; not what would give every entry one name or size.
    if any(key in ("path", "size") or key.startswith(_SPARSE) for key in archive.pax_headers):
        raise ArchiveDamaged("A global header sets every file's name or size; pack the archive again.")
    archive.pax_headers = {}  # or an archive's would add up
    return header


def _check_tar_entry(header: tarfile.TarInfo, name: str) -> None:
    if header.issym() or header.islnk():
        raise UnsafeMember(
            "is a link; pack the files themselves (tar --dereference --hard-dereference).", member=name
        )
    if header.isdev():
        raise UnsafeMember("is a device or a pipe; leave it out.", member=name)
    if header.issparse() or any(key.startswith(_SPARSE) for key in header.pax_headers):
        raise UnsafeMember("is a sparse file; pack the archive without --sparse.", member=name)
    if not header.isreg() and not header.isdir():
        raise UnsafeMember(f"is of an unknown type ({header.type!r}); pack plain files.", member=name)
    if header.size < 0 or (header.size and (header.isdir() or name.endswith("/"))):
        raise ArchiveDamaged("has a negative size, or is a folder with content; pack it again.", member=name)


def _read_zip(file: BinaryIO, limits: ArchiveLimits) -> Iterator[Member]:
    with _refusals():
        directory_offset, count = _find_directory(file, limits)
        # Names are UTF-8 also where the archive does not say so: macOS packs them like this.
        archive = zipfile.ZipFile(file, metadata_encoding="utf-8")
        entries = archive.infolist()
        if len(entries) != count:
            raise zipfile.BadZipFile("its directory has another number of entries than it states")
        _check_zip_sizes(entries, limits)
        _check_overlaps(file, entries, directory_offset)
    for entry in entries:
        # `filename` ends at the first NUL, and `orig_filename` has what stands in the archive.
        name = entry.orig_filename
        is_folder = name.endswith("/")
        _check_zip_entry(entry, name, is_folder)
        yield Member(name, is_folder, entry.file_size, _pieces(partial(archive.open, entry), name))


def _find_directory(file: BinaryIO, limits: ArchiveLimits) -> tuple[int, int]:
    """Where the directory begins, and how many entries it states, before zipfile reads all of it into memory.

    `_EndRecData` is private, but what ZipFile itself uses, so that both look at one record.
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
        raise ArchiveDamaged("Something follows the end of the zip archive; pack it again.")
    if disk or first_disk or here != count:
        raise ArchiveFormat("The zip archive is spread over several files; pack it as one.")
    if offset + size != place - (_END64_BYTES if magic == b"PK\6\6" else 0):
        raise zipfile.BadZipFile("its directory is not where it states")
    if count > limits.max_entries or size > _MAX_DIRECTORY_BYTES:
        raise ArchiveTooLarge(
            f"The archive states {count} files and folders, in a directory of {size} bytes; {limits.max_entries} "
            f"and {_MAX_DIRECTORY_BYTES} at most are allowed. Send WebDataset shards instead."
        )
    file.seek(offset)
    if file.read(size).count(b"PK\1\2") > limits.max_entries:
        raise zipfile.BadZipFile("its directory has more entries than it states")
    return offset, count


def _check_zip_sizes(entries: Sequence[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    """Refuse, before anything is written, what states that it is too large. Liars are found later."""
    total = 0
    for entry in entries:
        total += entry.file_size
        if entry.file_size > limits.max_file_bytes or total > limits.max_total_bytes:
            raise ArchiveTooLarge(
                f"states {entry.file_size} bytes; a file may have {limits.max_file_bytes}, and all of them together "
                f"{limits.max_total_bytes}. Send less.",
                member=entry.orig_filename,
            )
    limits.check_ratio(sum(entry.compress_size for entry in entries), total)


def _check_overlaps(file: BinaryIO, entries: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Refuse entries that share bytes, which zipfile does from 3.11.8 on (CVE-2024-0450).

    Sharing is how a small zip unpacks to terabytes without a ratio that gives it away.
    """
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    starts = [*(entry.header_offset for entry in ordered), end]
    for entry, (start, following) in zip(ordered, pairwise(starts), strict=True):
        file.seek(start)
        name_bytes, extra_bytes = _LOCAL.unpack(file.read(_LOCAL.size))
        if start + _LOCAL.size + name_bytes + extra_bytes + entry.compress_size > following:
            raise ArchiveDamaged(
                "shares bytes with another, or lies outside the archive; pack it again.",
                member=entry.orig_filename,
            )


def _check_zip_entry(entry: zipfile.ZipInfo, name: str, is_folder: bool) -> None:
    """A link or a device is told by the Unix mode, whichever system the entry says it comes from."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise UnsafeMember("is a link; pack the files themselves.", member=name)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeMember("is a device or a pipe; leave it out.", member=name)
    says_folder = kind == stat.S_IFDIR or bool(entry.external_attr & _DOS_FOLDER)
    if (says_folder and not is_folder) or (is_folder and (entry.file_size or kind == stat.S_IFREG)):
        raise ArchiveDamaged("is a file and a folder at once; pack the archive again.", member=name)
    if entry.flag_bits & _ENCRYPTED or entry.compress_type == _AES:
        raise ArchiveEncrypted("is encrypted; pack the files without a password.", member=name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveFormat(
            f"is compressed by method {entry.compress_type}; pack with the ordinary method, deflate.",
            member=name,
        )
