"""Archives made by hand, byte by byte where the standard library would write no such thing."""

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.unpack import unpack
from sds_clip.app.errors import InvalidArchive

BLOCK = 512
END = bytes(2 * BLOCK)


def tar_header(
    name: bytes,
    size: int | bytes = 0,
    type: bytes = b"0",
    *,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """One header block; `size` as bytes stands in its field as it is."""
    size_field = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"0000777\0"
    block[124:136] = size_field
    block[148:156] = b" " * 8
    block[156:157] = type
    block[257:265] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tar_entry(name: bytes, content: bytes = b"", type: bytes = b"0", **fields: bytes) -> bytes:
    return tar_header(name, len(content), type, **fields) + content + bytes(-len(content) % BLOCK)


def pax(records: Mapping[bytes, bytes], type: bytes = b"x") -> bytes:
    """An extended header. A record's length counts its own digits."""
    data = b""
    for key, value in records.items():
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(rest) + len(str(length)) != length:
            length += 1
        data += str(length).encode() + rest
    return tar_entry(b"PaxHeader", data, type)


def tar_of(files: Mapping[str, bytes], format: int = tarfile.DEFAULT_FORMAT, mode: str = "w") -> bytes:
    """As the standard library writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=format) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """As the standard library writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@dataclass
class ZipEntry:
    """An entry as it is to stand in a zip, true unless told otherwise."""

    name: bytes = b"a.txt"
    content: bytes = b"content"
    method: int = 8
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    """Stated unpacked size, in both headers."""
    packed: bytes | None = None
    stated_packed: int | None = None
    attributes: int = 0
    local_name: bytes | None = None
    local_size: int | None = None
    local_flags: int | None = None
    offset: int | None = None
    extra: bytes = b""
    """Of the central directory."""
    after: bytes = b""

    def body(self) -> bytes:
        if self.packed is not None:
            return self.packed
        if self.method == 0:
            return self.content
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflate.compress(self.content) + deflate.flush()

    def numbers(self) -> tuple[int, int, int]:
        crc = zlib.crc32(self.content) if self.crc is None else self.crc
        packed = len(self.body()) if self.stated_packed is None else self.stated_packed
        return crc, packed, len(self.content) if self.size is None else self.size

    def local(self) -> bytes:
        crc, packed, size = self.numbers()
        size = size if self.local_size is None else self.local_size
        name = self.name if self.local_name is None else self.local_name
        flags = self.flags if self.local_flags is None else self.local_flags
        header = struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, flags, self.method, 0, 0, crc, packed, size, len(name), 0
        )
        return header + name + self.body() + self.after

    def central(self, offset: int) -> bytes:
        crc, packed, size = self.numbers()
        offset = offset if self.offset is None else self.offset
        return (
            struct.pack(
                "<4s6H3L5H2L", b"PK\1\2", 0x0314, 20, self.flags, self.method, 0, 0, crc, packed, size,
                len(self.name), len(self.extra), 0, 0, 0, self.attributes, offset,
            )
            + self.name
            + self.extra
        )  # fmt: skip


def zip_by_hand(
    *entries: ZipEntry, count: int | None = None, cd_size: int | None = None, cd_offset: int | None = None,
    zip64: tuple[int, int, int] | None = None, comment: bytes = b"",
) -> bytes:  # fmt: skip
    """A zip of entries; `zip64` is (entries, size, offset) of the 64-bit record."""
    body, directory = b"", b""
    for entry in entries:
        directory += entry.central(len(body))
        body += entry.local()
    offset = len(body) if cd_offset is None else cd_offset
    size = len(directory) if cd_size is None else cd_size
    number = len(entries) if count is None else count
    end = b""
    if zip64 is not None:
        end += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, zip64[0], *zip64)
        end += struct.pack("<4sLQL", b"PK\6\7", 0, len(body) + len(directory), 1)
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, number, number, size, offset, len(comment))
    return body + directory + end + comment


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def file_names(folder: Path) -> list[str]:
    """The path of every file below a folder, also while files and folders come and go."""
    return [str(Path(above, name)) for above, _, names in os.walk(folder) for name in names]


def unpacked(folder: Path, data: bytes, limits: ArchiveLimits = ArchiveLimits()) -> dict[str, bytes]:
    archive = folder / "upload"
    archive.write_bytes(data)
    unpack(archive, folder / "out", limits)
    return tree(folder / "out")


def refused(folder: Path, data: bytes, limits: ArchiveLimits = ArchiveLimits()) -> InvalidArchive:
    """The error that an archive is refused with, once nothing but the archive is found on the disk."""
    archive = folder / "upload"
    archive.write_bytes(data)
    with pytest.raises(InvalidArchive) as caught:
        unpack(archive, folder / "out", limits)
    assert [left.name for left in folder.iterdir()] == ["upload"]
    assert caught.value.param == "file"
    return caught.value


def check_harmless(folder: Path, data: bytes) -> None:
    """Readers differ on it: an archive is refused and leaves nothing, or all that it unpacks to is in its folder."""
    try:
        assert unpacked(folder, data)
    except InvalidArchive:
        assert [left.name for left in folder.iterdir()] == ["upload"]
    else:
        assert {left.name for left in folder.iterdir()} == {"upload", "out"}
