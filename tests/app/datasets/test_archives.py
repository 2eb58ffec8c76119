"""What is read of tar and zip archives, and each defect of an entry or a format that is refused.

Those of test_hostile_archives.py are not repeated here.
"""

import gzip
import io
import itertools
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sds_clip.app.datasets.archive_limits import ENTRY_BYTES, ArchiveLimits
from sds_clip.app.errors import ArchiveTooLarge
from tests.app.datasets.archives import (
    END,
    ZipEntry,
    check_harmless,
    pax,
    refused,
    tar_entry,
    tar_header,
    tar_of,
    unpacked,
    zip_by_hand,
    zip_of,
)

FILES = {
    "a.txt": b"one",
    "folder/b.txt": b"",
    "folder/deep/c.bin": bytes(range(256)) * 5,
    "é/日本.txt": b"two",
}
LONG = {"folder/" + "n" * 150 + "/" + "m" * 200 + ".txt": b"long"}
NOISE = b"".join(struct.pack("<L", zlib.crc32(b"%d" % number)) for number in range(100_000)) + bytes(2**20)
MAX32 = 0xFFFFFFFF
X1000 = ZipEntry(content=b"x" * 1000)
DEFLATED = X1000.body()
PLAIN = zip_by_hand(ZipEntry(b"a"), ZipEntry(b"b"))
TAR_GZ = gzip.compress(tar_of({"a": bytes(range(256)) * 8}), mtime=0)


class OneWay(io.BytesIO):
    """A pipe: what is written cannot be corrected, so sizes follow the content."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise OSError


def streamed_zip(file: io.BytesIO, force_zip64: bool) -> bytes:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            with archive.open(name, "w", force_zip64=force_zip64) as member:
                member.write(content)
    return file.getvalue()


def in_members(data: bytes, size: int) -> bytes:
    parts = [gzip.compress(data[start : start + size]) for start in range(0, len(data), size)]
    return gzip.compress(b"").join(parts) + bytes(1000)


def signed_checksum() -> bytes:
    header = bytearray(tar_header("é".encode(), 1))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in header)
    return bytes(header) + b"1" + bytes(511) + END


def readable() -> Iterator[tuple[str, bytes, dict[str, bytes]]]:
    for mode in ("w", "w:gz"):
        yield f"ustar {mode}", tar_of(FILES, tarfile.USTAR_FORMAT, mode), FILES
        for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            yield f"tar {format} {mode}", tar_of(FILES | LONG, format, mode), FILES | LONG
    yield "gzip in many members", in_members(tar_of(FILES), 700), FILES
    odd = (
        tar_entry(b"old", b"1", b"\0", magic=bytes(8))
        + tar_entry(b"contiguous", b"2", b"7")
        + tar_entry(b"c", b"3", prefix=b"a/b")
        + tar_header(b"binary", b"\x80" + (1).to_bytes(11, "big")) + b"5" + bytes(511)
        + tar_header(b"spaces", b"          1 ") + b"6" + bytes(511)
    )  # fmt: skip
    files = {"old": b"1", "contiguous": b"2", "a/b/c": b"3", "binary": b"5", "spaces": b"6"}
    yield "odd but lawful headers", odd + END, files
    yield "checksum over signed bytes", signed_checksum(), {"é": b"1"}
    clutter = ("._a.png", "__MACOSX/a.png", "b/.DS_Store", "b/._c")
    yield "clutter of macOS", tar_of(dict.fromkeys(clutter, b"x") | {"a.png": b"1"}), {"a.png": b"1"}
    again = tar_entry(b"d/a", b"1") + tar_header(b"d/", type=b"5") * 2 + tar_header(b"./", type=b"5") + END
    yield "folder listed after its files, and again", again, {"d/a": b"1"}
    ruled = (
        pax({b"comment": b"by git"}, b"g")
        + pax({b"path": b"longer", b"size": b"3", b"mtime": b"1.5"}) + tar_header(b"x", 0) + b"abc" + bytes(509)
        + tar_entry(b"y", b"1")
        + tar_entry(b"././@LongLink", b"gnu-name\0", b"L") + tar_entry(b"z", b"2")
    )  # fmt: skip
    yield "headers that rule one entry", ruled + END, {"longer": b"abc", "y": b"1", "gnu-name": b"2"}
    attributes = pax({b"SCHILY.xattr.user.%d" % number: b"2 2 2 " * 999 for number in range(9)})
    yield "pax header with large values", attributes + tar_entry(b"a", b"1") + END, {"a": b"1"}
    numbers = ("12 " * 80 + "/") * 3 + "a"
    long = tar_entry(b"L", numbers.encode() + b"\0", b"L") + tar_entry(b"x", b"1") + END
    yield "long name of numbers", long, {numbers: b"1"}
    yield "tar of much content", tar_of({"a": NOISE}), {"a": NOISE}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        yield f"zip by method {method}", zip_of(FILES, method), FILES
        yield f"zip of much content by method {method}", zip_of({"a": NOISE}, method), {"a": NOISE}
    for wide in (False, True):
        yield f"zip with 64 bits {wide}", streamed_zip(io.BytesIO(), wide), FILES
        yield f"streamed zip with 64 bits {wide}", streamed_zip(OneWay(), wide), FILES
    size, offset = len(X1000.central(0)), len(X1000.local())
    yield (
        "zip with a 64-bit end",
        zip_by_hand(X1000, count=0xFFFF, cd_size=MAX32, cd_offset=MAX32, zip64=(1, size, offset)),
        {"a.txt": b"x" * 1000},
    )
    yield "zip with a long comment", zip_by_hand(X1000, comment=b"c" * 0xFFFF), {"a.txt": b"x" * 1000}


READABLE = list(readable())


@pytest.mark.parametrize(("data", "files"), [row[1:] for row in READABLE], ids=[row[0] for row in READABLE])
def test_archive_unpacks_to_its_files(tmp_path: Path, data: bytes, files: dict[str, bytes]) -> None:
    assert unpacked(tmp_path, data) == files


@pytest.mark.parametrize("command", [["tar", "-cz", "."], ["zip", "-rq", "-", "."]], ids=["tar", "zip"])
def test_archive_of_the_system_s_own_program_unpacks(tmp_path: Path, command: list[str]) -> None:
    source = tmp_path / "source"
    for name, content in (FILES | LONG).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    try:
        data = subprocess.run(command, cwd=source, check=True, capture_output=True).stdout
    except FileNotFoundError:
        pytest.skip(f"no {command[0]} program is installed")
    (tmp_path / "work").mkdir()
    assert unpacked(tmp_path / "work", data) == FILES | LONG


def privileged_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, type, mode in (("a", b"0", 0o6777), ("d", b"5", 0), ("d/b", b"0", 0o6777)):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = type, mode, 4711, 4711, 1
            archive.addfile(info)
    return buffer.getvalue()


def privileged_zip() -> bytes:
    return zip_by_hand(
        ZipEntry(b"a", b"", attributes=(stat.S_IFREG | 0o6777) << 16),
        ZipEntry(b"d/", b"", attributes=stat.S_IFDIR << 16 | 0x10),
        ZipEntry(b"d/b", b""),
    )


@pytest.mark.parametrize("data", [privileged_tar(), privileged_zip()], ids=["tar", "zip"])
def test_permissions_owners_and_times_are_not_taken_over(tmp_path: Path, data: bytes) -> None:
    assert unpacked(tmp_path, data) == {"a": b"", "d/b": b""}
    status = (tmp_path / "out" / "a").stat()
    assert status.st_mode & 0o7133 == 0
    assert status.st_uid != 4711
    assert status.st_mtime > 1


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_limits_hold_to_the_byte_and_to_the_entry(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    data = pack({"a": b"12345", "d/b": b"123"})
    total = 8 + 3 * ENTRY_BYTES
    assert unpacked(tmp_path, data, ArchiveLimits(max_entries=3, max_total_bytes=total, max_file_bytes=5))
    (tmp_path / "again").mkdir()
    for limits, member in (
        (ArchiveLimits(max_entries=1), None),
        (ArchiveLimits(max_entries=2), None),
        (ArchiveLimits(max_total_bytes=total - 1), None),
        (ArchiveLimits(max_file_bytes=4), "a"),
    ):
        found = refused(tmp_path / "again", data, limits)
        assert isinstance(found, ArchiveTooLarge)
        assert found.member == member
        assert found.status == 413


def test_empty_folder_of_the_oldest_format_is_kept(tmp_path: Path) -> None:
    folder = tar_header(b"old-folder/", type=b"\0", magic=bytes(8))
    assert unpacked(tmp_path, folder + tar_entry(b"a") + END) == {"a": b""}
    assert (tmp_path / "out" / "old-folder").is_dir()


def zip_with(entry: ZipEntry) -> bytes:
    return zip_by_hand(ZipEntry(b"good"), entry, ZipEntry(b"last"))


def pushed() -> bytes:
    """A zip whose first entry claims five bytes of extra that nobody wrote, so that its content moves into the next."""
    local = bytearray(ZipEntry(b"a").local())
    local[28:30] = struct.pack("<H", 5)
    return bytes(local) + PLAIN[len(local) :]


def of_disks(place: int) -> bytes:
    data = bytearray(PLAIN)
    data[len(data) - 22 + place] = 1
    return bytes(data)


A = tar_entry(b"a")
DEFECTS: dict[str, dict[str, bytes]] = {
    "archive_member_unsafe": {
        "pax sparse by its version alone": pax({b"GNU.sparse.major": b"1"}) + A + END,
        "pax sparse by its real size": pax({b"SCHILY.realsize": b"1"}) + A + END,
        "tar file without a name": tar_entry(b"", b"content") + END,
        "tar file named .": tar_entry(b".", b"content") + END,
        "zip file without a name": zip_with(ZipEntry(b"")),
        "zip name of 60,000 bytes": zip_with(ZipEntry(b"n" * 60_000)),
    },
    "archive_damaged": {
        "first header with a record of length 0": tar_entry(b"h", b"0 a=1\n", b"x") + A + END,
        "first header with a length that does not end": tar_entry(b"h", b"9" * 5000, b"x") + A + END,
        "pax record that ends before its value": tar_entry(b"h", b"2 " * 999 + b"=", b"x") + A + END,
        "global pax record that ends before its value": tar_entry(b"h", b"3 a" * 999 + b"=", b"g") + A + END,
        "tar file with content that is named as a folder": tar_entry(b"d/", b"content") + END,
        "tar entry after one block of the end": tar_entry(b"a", b"1") + bytes(512) + A + END,
        "tar with one byte after its end": tar_entry(b"a", b"1") + END + b"x",
        "gzip with one byte after its end": TAR_GZ + b"x",
        "gzip with one byte after zeros": TAR_GZ + bytes(10) + b"x",
        "gzip overwritten in the middle": TAR_GZ[:50] + b"\xff" * 20 + TAR_GZ[70:],
        "zip folder without its slash": zip_with(ZipEntry(attributes=(stat.S_IFDIR | 0o777) << 16)),
        "zip file with a slash": zip_with(ZipEntry(b"d/", b"", attributes=(stat.S_IFREG | 0o777) << 16)),
        "zip entry of one byte more than stated": zip_with(ZipEntry(size=6)),
        "zip entry of one byte less than stated": zip_with(ZipEntry(size=8)),
        "stored zip entry of one byte more than stated": zip_with(ZipEntry(method=0, size=6)),
        "zip entry of nothing in place of a byte": zip_with(ZipEntry(content=b"", packed=b"\3\0", size=1)),
        "zip entry that begins too late": zip_with(ZipEntry(offset=1)),
        "zip entry of 4 GiB without a 64-bit field": zip_with(ZipEntry(stated_packed=MAX32)),
        "zip content pushed into the next entry": pushed(),
        "zip directory that is too short": zip_by_hand(ZipEntry(), cd_size=10),
        "zip directory without its 64-bit record": zip_by_hand(ZipEntry(), cd_offset=MAX32, cd_size=MAX32),
        "zip directory beside its 64-bit place": zip_by_hand(ZipEntry(), zip64=(2, 51, 42)),
        "zip with bytes before it": b"PK\3\4" + PLAIN,
    },
    "archive_truncated": {
        "first header without its entry": pax({b"path": b"lost"}) + END,
        "gzip without its last byte": TAR_GZ[:-1],
        "gzip cut in its header": TAR_GZ[:11],
        "zip without its last byte": PLAIN[:-1],
        "zip of its mark alone": PLAIN[:4],
        "zip of an end's mark alone": b"PK\5\6" + bytes(13),
        "zip cut in its comment": zip_by_hand(ZipEntry(), comment=b"comment")[:-1],
    },
    "archive_too_large": {
        "first header of more than a MiB": tar_header(b"h", 2**20 + 1, b"x") + END,
    },
    "archive_format": {
        **{f"zip method {method}": zip_with(ZipEntry(method=method, packed=b"x")) for method in (9, 14, 93)},
        "zip directory on another disk": of_disks(6),
        "zip behind a program": b"stub" + PLAIN,
        "gzip of nothing": gzip.compress(b""),
        "gzip of no tar": gzip.compress(bytes(100) + b"no tar" * 100),
    },
    "archive_invalid": {
        "tar of nothing": END,
        "tar of a folder": tar_header(b"d/", type=b"5") + END,
        "tar of clutter": tar_entry(b"._a", b"x") + END,
    },
}  # fmt: skip
ROWS = [(data, code, name) for code, rows in DEFECTS.items() for name, data in rows.items()]


@pytest.mark.parametrize(("data", "code"), [row[:2] for row in ROWS], ids=[row[2] for row in ROWS])
def test_archive_with_a_defect_is_refused(tmp_path: Path, data: bytes, code: str) -> None:
    found = refused(tmp_path, data)
    assert found.code == code
    assert len(found.message) < 400


HARMLESS = {
    "pax size that is no number": pax({b"size": b"1e3"}) + A + END,
    "two long names": pax({b"path": b"one"}) + tar_entry(b"L", b"two\0", b"L") + A + END,
    "pax record that is too short": tar_entry(b"h", b"5 a=1\n", b"x") + A + END,
    "pax record that is too long": tar_entry(b"h", b"99 a=1\n", b"x") + A + END,
    "pax record without a value": tar_entry(b"h", b"7 abcd\n", b"x") + A + END,
    "eight pax headers": pax({b"a": b"1"}) * 8 + A + END,
    "an end's mark in a zip's comment": zip_by_hand(ZipEntry(), comment=b"PK\5\6" + bytes(30)),
    "deflate without its last byte": zip_with(ZipEntry(content=b"x" * 1000, packed=DEFLATED[:-1])),
    "a byte after deflate": zip_with(ZipEntry(content=b"x" * 1000, packed=DEFLATED + b"\0")),
    "deflate twice": zip_with(ZipEntry(content=b"x" * 1000, packed=DEFLATED + DEFLATED)),
    "no deflate for no content": zip_with(ZipEntry(content=b"", packed=b"")),
    "another size in the local header": zip_with(ZipEntry(local_size=8)),
    "another charset in the local header": zip_with(ZipEntry(local_flags=0x0800)),
    "64-bit size in an unknown field": zip_with(ZipEntry(size=MAX32, extra=struct.pack("<2HQ", 2, 8, 7))),
}


@pytest.mark.parametrize("data", HARMLESS.values(), ids=HARMLESS)
def test_odd_archive_is_refused_or_unpacks_into_its_folder(tmp_path: Path, data: bytes) -> None:
    check_harmless(tmp_path, data)


def test_archive_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = (
        tar_entry(b"a", b"1" * 600)
        + tar_header(b"d/", type=b"5")
        + pax({b"path": b"b"})
        + tar_entry(b"c", b"2")
    )
    assert unpacked(tmp_path / ".", whole + END[:512]) == {"a": b"1" * 600, "b": b"2"}
    for length in [*range(512, len(whole) + 512, 256), 513, 1023]:
        (tmp_path / str(length)).mkdir()
        found = refused(tmp_path / str(length), (whole + END)[:length])
        assert found.code == "archive_truncated"


@pytest.mark.parametrize(
    ("data", "member", "words"),
    [
        *(
            (tar_entry(b"good", b"1") + tar_entry(b"bad", type=type) + END, "bad", words)
            for type, words in ((b"1", "link"), (b"3", "device"), (b"S", "sparse"), (b"V", "unknown type"))
        ),
        (pax({b"path": b"\x1b[2J\n"}) + A + END, "\x1b[2J\n", "control characters"),
        (tar_entry(b"caf\xe9") + END, "caf\\xe9", "UTF-8"),
        (zip_with(ZipEntry(b"bad", crc=1)), "bad", "CRC"),
        (zip_with(ZipEntry(b"bad", flags=1)), "bad", "encrypted"),
        (zip_by_hand(ZipEntry(b"a"), ZipEntry(b"b"), ZipEntry(b"A")), "A", "twice"),
    ],
)  # fmt: skip
def test_refusal_names_the_entry_and_says_why(tmp_path: Path, data: bytes, member: str, words: str) -> None:
    found = refused(tmp_path, data)
    assert found.member == member
    assert words in found.message
    assert found.message.isprintable()


def test_other_formats_are_named(tmp_path: Path) -> None:
    formats = {b"BZh9": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"Rar!\x1a\x07": "RAR"}
    unknown = dict.fromkeys((b"<html>", b"\x89PNG\r\n\x1a\n", b"x" * 1000, b"PK"), "not a tar")
    for data, words in itertools.chain(formats.items(), unknown.items()):
        found = refused(tmp_path, data + b"rest")
        assert found.code == "archive_format"
        assert words in found.message


def test_gzip_of_endless_empty_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_clip.app.datasets.archives._MAX_GZIP_MEMBERS", 1000)
    data = gzip.compress(tar_of({"a": b"a"}))
    assert refused(tmp_path, gzip.compress(b"") * 1000 + data).code == "archive_damaged"
    assert unpacked(tmp_path, gzip.compress(b"") * 900 + data) == {"a": b"a"}
