"""Zip archives: what is read, and each thing that is refused."""

import io
import stat
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest

from sds_clip.app.datasets.limits import ArchiveLimits
from sds_clip.app.errors import (
    ArchiveBomb,
    ArchiveDamaged,
    ArchiveEncrypted,
    ArchiveFormat,
    ArchiveTooLarge,
    ArchiveTruncated,
    DuplicateMember,
    InvalidArchive,
    UnsafeMember,
)
from tests.app.datasets.archives import ZipEntry, check_harmless, refused, unpacked, zip_by_hand, zip_of

FILES = {
    "a.txt": b"one",
    "folder/b.txt": b"",
    "folder/deep/c.bin": bytes(range(256)) * 5,
    "é/日本.txt": b"two",
}
MAX32 = 0xFFFFFFFF


def mode(kind: int) -> int:
    """External attributes as Unix writes them."""
    return (kind | 0o777) << 16


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_unpacks_to_its_files(tmp_path: Path, method: int) -> None:
    assert unpacked(tmp_path, zip_of(FILES, method)) == FILES


class OneWay(io.RawIOBase):
    """A pipe: what is written cannot be corrected, so sizes follow the content."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += bytes(data)
        return len(data)


@pytest.mark.parametrize("force_zip64", [False, True])
@pytest.mark.parametrize("seekable", [False, True])
def test_streamed_and_64_bit_zips_unpack(tmp_path: Path, force_zip64: bool, seekable: bool) -> None:
    file: OneWay | io.BytesIO = io.BytesIO() if seekable else OneWay()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            with archive.open(name, "w", force_zip64=force_zip64) as member:
                member.write(content)
    data = file.getvalue() if isinstance(file, io.BytesIO) else file.data
    assert unpacked(tmp_path, data) == FILES


def test_archive_of_the_system_s_own_zip_unpacks(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, content in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    try:
        data = subprocess.run(["zip", "-rq", "-", "."], cwd=source, check=True, capture_output=True).stdout
    except FileNotFoundError:
        pytest.skip("no zip program is installed")
    (tmp_path / "work").mkdir()
    assert unpacked(tmp_path / "work", data) == FILES


def test_64_bit_end_records_are_read(tmp_path: Path) -> None:
    entry = ZipEntry(content=b"x" * 40)
    size, offset = len(entry.central(0)), len(entry.local())
    data = zip_by_hand(entry, count=0xFFFF, cd_size=MAX32, cd_offset=MAX32, zip64=(1, size, offset))
    assert unpacked(tmp_path, data) == {"a.txt": b"x" * 40}


def test_comment_that_holds_the_end_s_own_mark_does_no_harm(tmp_path: Path) -> None:
    check_harmless(tmp_path, zip_by_hand(ZipEntry(), comment=b"PK\5\6" + bytes(30)))


def test_permissions_are_not_taken_over(tmp_path: Path) -> None:
    data = zip_by_hand(
        ZipEntry(b"a", attributes=(stat.S_IFREG | 0o6777) << 16),
        ZipEntry(b"d/", b"", attributes=stat.S_IFDIR << 16 | 0x10),
        ZipEntry(b"d/b"),
    )
    assert unpacked(tmp_path, data) == {"a": b"content", "d/b": b"content"}
    assert (tmp_path / "out" / "a").stat().st_mode & 0o7133 == 0


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (ZipEntry(attributes=mode(stat.S_IFLNK)), UnsafeMember),
        (ZipEntry(attributes=mode(stat.S_IFIFO)), UnsafeMember),
        (ZipEntry(attributes=mode(stat.S_IFCHR)), UnsafeMember),
        (ZipEntry(attributes=mode(stat.S_IFBLK)), UnsafeMember),
        (ZipEntry(attributes=mode(stat.S_IFSOCK)), UnsafeMember),
        (ZipEntry(b"../a"), UnsafeMember),
        (ZipEntry(b"a/../../b"), UnsafeMember),
        (ZipEntry(b"/etc/passwd"), UnsafeMember),
        (ZipEntry(b"C:/a"), UnsafeMember),
        (ZipEntry(b"a\\b"), UnsafeMember),
        (ZipEntry(b"a\0b"), UnsafeMember),
        (ZipEntry(b""), UnsafeMember),
        (ZipEntry(b"caf\x82"), UnsafeMember),
        (ZipEntry(b"n" * 256), UnsafeMember),
        (ZipEntry(b"n" * 60_000), UnsafeMember),
        (ZipEntry(attributes=mode(stat.S_IFDIR)), ArchiveDamaged),
        (ZipEntry(attributes=0x10), ArchiveDamaged),
        (ZipEntry(b"d/"), ArchiveDamaged),
        (ZipEntry(b"d/", b"", attributes=mode(stat.S_IFREG)), ArchiveDamaged),
        (ZipEntry(flags=0x0001), ArchiveEncrypted),
        (ZipEntry(flags=0x0041), ArchiveEncrypted),
        (ZipEntry(flags=0x2000), ArchiveEncrypted),
        (ZipEntry(method=99, packed=b"x"), ArchiveEncrypted),
        (ZipEntry(method=9, packed=b"x"), ArchiveFormat),
        (ZipEntry(method=12, packed=b"x"), ArchiveFormat),
        (ZipEntry(method=14, packed=b"x"), ArchiveFormat),
        (ZipEntry(method=93, packed=b"x"), ArchiveFormat),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, ZipEntry) else None,
)
def test_entry_that_cannot_be_taken_is_refused(
    tmp_path: Path, entry: ZipEntry, error: type[InvalidArchive]
) -> None:
    found = refused(tmp_path, zip_by_hand(ZipEntry(b"good"), entry))
    assert type(found) is error
    assert found.member is not None
    assert len(found.message) < 400


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "a"),
        ("a", "./a"),
        ("a.PNG", "A.png"),
        ("é", "e\u0301"),
        ("d/a", "D/b"),
        ("d", "d/a"),
        ("d/a", "d"),
    ],
)
def test_same_name_twice_is_refused(tmp_path: Path, first: str, second: str) -> None:
    data = zip_by_hand(ZipEntry(first.encode()), ZipEntry(second.encode()))
    assert isinstance(refused(tmp_path, data), DuplicateMember)


DEFLATED = ZipEntry(content=b"x" * 1000).body()


@pytest.mark.parametrize(
    "entry",
    [
        ZipEntry(crc=1),
        ZipEntry(size=6),
        ZipEntry(size=8),
        ZipEntry(method=0, size=6),
        ZipEntry(content=b"x" * 1000, size=10),
        ZipEntry(content=b"x" * 1000, size=100_000),
        ZipEntry(content=b"x" * 1000, packed=b"\xff" + DEFLATED),
        ZipEntry(content=b"", packed=b"\3\0", size=1),
        ZipEntry(local_name=b"b.txt"),
        ZipEntry(local_name=b"../a.t"),
        ZipEntry(offset=1),
        ZipEntry(stated_packed=10_000_000),
        ZipEntry(stated_packed=MAX32),
        ZipEntry(size=MAX32, extra=struct.pack("<2HL", 1, 4, 7)),
        ZipEntry(stated_packed=MAX32, extra=struct.pack("<2HQ", 1, 8, 2**63)),
    ],
    ids=repr,
)  # fmt: skip
def test_entry_that_lies_is_refused(tmp_path: Path, entry: ZipEntry) -> None:
    entry.name = b"liar"
    entry.local_name = entry.local_name or b"liar"
    found = refused(tmp_path, zip_by_hand(ZipEntry(b"good"), entry, ZipEntry(b"last")))
    assert isinstance(found, ArchiveDamaged)


@pytest.mark.parametrize(
    "entry",
    [
        ZipEntry(content=b"x" * 1000, packed=DEFLATED[:-1]),
        ZipEntry(content=b"x" * 1000, packed=DEFLATED + b"\0"),
        ZipEntry(content=b"x" * 1000, packed=DEFLATED + DEFLATED),
        ZipEntry(content=b"", packed=b""),
        ZipEntry(local_size=8),
        ZipEntry(local_flags=1),
        ZipEntry(local_flags=0x0800),
        ZipEntry(size=MAX32, extra=struct.pack("<2HQ", 2, 8, 7)),
    ],
    ids=repr,
)
def test_entry_whose_lie_does_no_harm_is_read_or_refused(tmp_path: Path, entry: ZipEntry) -> None:
    check_harmless(tmp_path, zip_by_hand(ZipEntry(b"good"), entry, ZipEntry(b"last")))


def test_entry_that_states_a_64_bit_size_is_held_to_the_limit(tmp_path: Path) -> None:
    entry = ZipEntry(size=MAX32, extra=struct.pack("<2HQ", 1, 8, 2**62))
    assert isinstance(refused(tmp_path, zip_by_hand(entry)), ArchiveTooLarge)


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """The kernel of David Fifield's bomb (2019): many names for one stretch of deflate."""
    shared = ZipEntry(b"aaaa", b"x" * 10_000)
    found = refused(tmp_path, zip_by_hand(shared, ZipEntry(b"bbbb", b"x" * 10_000, offset=0)))
    assert isinstance(found, ArchiveDamaged)
    quoted = ZipEntry(b"aaaa", method=0, content=shared.local())
    outer = len(quoted.local()) - len(shared.local())
    found = refused(tmp_path, zip_by_hand(quoted, ZipEntry(b"aaab", b"x" * 10_000, offset=outer)))
    assert isinstance(found, ArchiveDamaged)


def test_content_that_a_long_local_extra_pushes_into_the_next_entry_is_refused(tmp_path: Path) -> None:
    local = bytearray(ZipEntry(b"a").local())
    local[28:30] = struct.pack("<H", 5)  # five bytes of extra that nobody wrote
    data = zip_by_hand(ZipEntry(b"a"), ZipEntry(b"b"))
    data = bytes(local) + data[len(local) :]
    assert isinstance(refused(tmp_path, data), ArchiveDamaged)


def plain() -> bytes:
    return zip_by_hand(ZipEntry(b"a"), ZipEntry(b"b"))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (zip_by_hand(ZipEntry(), count=0), ArchiveDamaged),
        (zip_by_hand(ZipEntry(), count=2), ArchiveDamaged),
        (zip_by_hand(ZipEntry(), cd_size=10), ArchiveDamaged),
        (zip_by_hand(ZipEntry(), cd_offset=10), ArchiveDamaged),
        (zip_by_hand(ZipEntry(), cd_offset=MAX32, cd_size=MAX32), ArchiveDamaged),
        (zip_by_hand(ZipEntry(), zip64=(2, 51, 42)), ArchiveDamaged),
        (zip_by_hand(ZipEntry(), count=0xFFFF, zip64=(2**40, 51, 44)), ArchiveTooLarge),
        (zip_by_hand(ZipEntry(), cd_offset=MAX32, zip64=(1, 51, 2**63)), ArchiveDamaged),
        (plain() + b"\n", ArchiveDamaged),
        (plain() + plain(), ArchiveDamaged),
        (plain()[:-1], ArchiveTruncated),
        (plain()[: len(plain()) // 2], ArchiveTruncated),
        (plain()[:4], ArchiveTruncated),
        (b"stub" + plain(), ArchiveFormat),
        (b"PK\3\4" + plain(), ArchiveDamaged),
        (zip_by_hand(), InvalidArchive),
    ],
)
def test_directory_that_lies_is_refused(tmp_path: Path, data: bytes, error: type[InvalidArchive]) -> None:
    assert type(refused(tmp_path, data)) is error


@pytest.mark.parametrize("place", [4, 6])
def test_zip_in_several_files_is_refused(tmp_path: Path, place: int) -> None:
    data = bytearray(plain())
    data[len(data) - 22 + place] = 1
    assert isinstance(refused(tmp_path, bytes(data)), ArchiveFormat)


def test_liar_among_a_hundred_leaves_nothing(tmp_path: Path) -> None:
    entries = [ZipEntry(b"%d/file" % number) for number in range(100)]
    assert refused(tmp_path, zip_by_hand(*entries, ZipEntry(b"liar", crc=1))).member == "liar"


def test_limits_hold_to_the_byte_and_to_the_entry(tmp_path: Path) -> None:
    data = zip_of({"a": b"12345", "d/b": b"123"})
    assert unpacked(tmp_path, data, ArchiveLimits(max_entries=3, max_total_bytes=8, max_file_bytes=5))
    (tmp_path / "again").mkdir()
    for limits in (
        ArchiveLimits(max_entries=1),
        ArchiveLimits(max_entries=2),
        ArchiveLimits(max_total_bytes=7),
        ArchiveLimits(max_file_bytes=4),
    ):
        assert isinstance(refused(tmp_path / "again", data, limits), ArchiveTooLarge)


@pytest.mark.parametrize("spread", [1, 64])
def test_bomb_is_refused_before_anything_is_written(tmp_path: Path, spread: int) -> None:
    limits = ArchiveLimits(free_bytes=2**20, max_ratio=10)
    data = zip_of({str(number): bytes(2**22 // spread) for number in range(spread)})
    assert isinstance(refused(tmp_path, data, limits), ArchiveBomb)


def test_archive_within_an_archive_is_a_file(tmp_path: Path) -> None:
    inner = zip_of({"x": bytes(10_000)})
    assert unpacked(tmp_path, zip_of({"inner.zip": inner, "inner.tar.gz": b"any"})) == {
        "inner.zip": inner,
        "inner.tar.gz": b"any",
    }


def test_content_larger_than_a_chunk_is_whole(tmp_path: Path) -> None:
    noise = b"".join(struct.pack("<L", zlib.crc32(b"%d" % number)) for number in range(200_000))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        folder = tmp_path / str(method)
        folder.mkdir()
        assert unpacked(folder, zip_of({"a": noise + bytes(2**20)}, method)) == {"a": noise + bytes(2**20)}
