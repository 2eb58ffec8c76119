"""Tar archives: what is read, and each thing that is refused."""

import gzip
import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sds_clip.app.datasets.limits import ArchiveLimits
from sds_clip.app.errors import (
    ArchiveBomb,
    ArchiveDamaged,
    ArchiveFormat,
    ArchiveTooLarge,
    ArchiveTruncated,
    DuplicateMember,
    InvalidArchive,
    UnsafeMember,
)
from tests.app.datasets.archives import (
    END,
    check_harmless,
    pax,
    refused,
    tar_entry,
    tar_header,
    tar_of,
    unpacked,
)

FILES = {
    "a.txt": b"one",
    "folder/b.txt": b"",
    "folder/deep/c.bin": bytes(range(256)) * 5,
    "é/日本.txt": b"two",
}
LONG = "folder/" + "n" * 150 + "/" + "m" * 200 + ".txt"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_archives_of_every_format_unpack_to_their_files(tmp_path: Path, format: int, mode: str) -> None:
    files = FILES if format == tarfile.USTAR_FORMAT else {**FILES, LONG: b"long"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=format) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert unpacked(tmp_path, buffer.getvalue()) == files


def test_archive_of_the_system_s_own_tar_unpacks(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, content in {**FILES, LONG: b"long"}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    data = subprocess.run(["tar", "-C", source, "-cz", "."], check=True, capture_output=True).stdout
    (tmp_path / "work").mkdir()
    assert unpacked(tmp_path / "work", data) == {**FILES, LONG: b"long"}


def test_header_s_odd_but_lawful_forms_are_read(tmp_path: Path) -> None:
    data = (
        tar_entry(b"old", b"1", b"\0", magic=bytes(8))
        + tar_header(b"old-folder/", type=b"\0", magic=bytes(8))
        + tar_entry(b"contiguous", b"2", b"7")
        + tar_entry(b"c", b"3", prefix=b"a/b")
        + tar_header(b"binary", b"\x80" + (1).to_bytes(11, "big")) + b"5" + bytes(511)
        + tar_header(b"spaces", b"          1 ") + b"6" + bytes(511)
    )  # fmt: skip
    assert unpacked(tmp_path, data + END) == {
        "old": b"1", "contiguous": b"2", "a/b/c": b"3", "binary": b"5", "spaces": b"6",
    }  # fmt: skip
    assert (tmp_path / "out" / "old-folder").is_dir()


def test_checksum_over_signed_bytes_is_read(tmp_path: Path) -> None:
    header = bytearray(tar_header("é".encode(), 1))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in header)
    assert unpacked(tmp_path, bytes(header) + b"1" + bytes(511) + END) == {"é": b"1"}


def test_permissions_and_owners_are_not_taken_over(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a")
        info.mode, info.uid, info.gid, info.mtime = 0o6777, 4711, 4711, 1
        archive.addfile(info)
        folder = tarfile.TarInfo("closed")
        folder.type, folder.mode = tarfile.DIRTYPE, 0
        archive.addfile(folder)
        archive.addfile(tarfile.TarInfo("closed/b"))
    assert unpacked(tmp_path, buffer.getvalue()) == {"a": b"", "closed/b": b""}
    status = (tmp_path / "out" / "a").stat()
    assert status.st_mode & 0o7133 == 0
    assert status.st_uid != 4711
    assert status.st_mtime > 1


def test_clutter_of_macos_is_left_out(tmp_path: Path) -> None:
    data = tar_of(
        {"._a.png": b"x", "a.png": b"1", "__MACOSX/a.png": b"x", "b/.DS_Store": b"x", "b/._c": b"x"}
    )
    assert unpacked(tmp_path, data) == {"a.png": b"1"}


@pytest.mark.parametrize(
    ("type", "error"),
    [(b"1", "link"), (b"2", "link"), (b"3", "device"), (b"4", "device"), (b"6", "pipe"), (b"S", "sparse")]
    + [(type, "unknown type") for type in (b"V", b"M", b"D", b"\xff", b"9")],
)
def test_what_is_no_file_or_folder_is_refused(tmp_path: Path, type: bytes, error: str) -> None:
    found = refused(tmp_path, tar_entry(b"good", b"1") + tar_entry(b"bad", type=type) + END)
    assert isinstance(found, UnsafeMember)
    assert found.member == "bad"
    assert error in found.message


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "a/../../b",
        "..",
        "/etc/passwd",
        "//a",
        "C:/a",
        "c:a",
        "a\\b",
        "..\\a",
        "a\nb",
        "a\x7f",
        "\x1b[2J",
        "n" * 256,
        "d/" * 33 + "a",
        "/".join(["n" * 200] * 6),
        "é" * 128,
    ],
)
def test_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    data = tar_entry(b"good", b"1") + pax({b"path": name.encode()}) + tar_entry(b"short", b"2") + END
    found = refused(tmp_path, data)
    assert isinstance(found, UnsafeMember)
    assert found.member == name
    assert "\n" not in found.message
    assert "\x1b" not in found.message


def test_nul_in_a_pax_name_is_refused(tmp_path: Path) -> None:
    found = refused(tmp_path, pax({b"path": b"a.png\0.sh"}) + tar_entry(b"x", b"1") + END)
    assert isinstance(found, UnsafeMember)


def test_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    found = refused(tmp_path, tar_entry(b"caf\xe9", b"1") + END)
    assert isinstance(found, UnsafeMember)
    assert found.member == "caf\\xe9"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "a"),
        ("a", "./a"),
        ("d/a", "d//a"),
        ("a.PNG", "A.png"),
        ("é", "e\u0301"),
        ("ﬀ", "FF"),
        ("ς", "Σ"),
        ("d/a", "D/b"),
        ("d", "d/a"),
        ("d/a", "d"),
        ("D", "d/a"),
        ("d/e/f", "d/E"),
    ],
)
def test_same_name_twice_is_refused(tmp_path: Path, first: str, second: str) -> None:
    found = refused(tmp_path, tar_entry(first.encode(), b"1") + tar_entry(second.encode(), b"2") + END)
    assert isinstance(found, DuplicateMember)
    assert found.member is not None


def test_folder_may_be_listed_after_its_files_and_again(tmp_path: Path) -> None:
    data = tar_entry(b"d/a", b"1") + tar_header(b"d/", type=b"5") * 2 + tar_header(b"./", type=b"5") + END
    assert unpacked(tmp_path, data) == {"d/a": b"1"}


def test_pax_and_gnu_headers_rule_the_entry_that_follows_and_no_other(tmp_path: Path) -> None:
    data = (
        pax({b"comment": b"by git"}, b"g")
        + pax({b"path": b"longer", b"size": b"3", b"mtime": b"1.5"}) + tar_header(b"x", 0) + b"abc" + bytes(509)
        + tar_entry(b"y", b"1")
        + tar_entry(b"././@LongLink", b"gnu-name\0", b"L") + tar_entry(b"z", b"2")
    )  # fmt: skip
    assert unpacked(tmp_path, data + END) == {"longer": b"abc", "y": b"1", "gnu-name": b"2"}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (pax({b"path": b"all"}, b"g") + tar_entry(b"a"), ArchiveDamaged),
        (pax({b"size": b"0"}, b"g") + tar_entry(b"a"), ArchiveDamaged),
        (pax({b"GNU.sparse.major": b"1"}) + tar_entry(b"a"), UnsafeMember),
        (pax({b"GNU.sparse.map": b"0,1"}) + tar_entry(b"a"), UnsafeMember),
        (pax({b"SCHILY.realsize": b"1"}) + tar_entry(b"a"), UnsafeMember),
        (pax({b"size": b"-1"}) + tar_entry(b"a"), ArchiveDamaged),
        (pax({b"size": b"9" * 19}) + tar_entry(b"a"), ArchiveTooLarge),
        (tar_entry(b"h", b"0 a=1\n", b"x") + tar_entry(b"a"), ArchiveDamaged),
        (tar_entry(b"h", b"9" * 5000, b"x") + tar_entry(b"a"), ArchiveDamaged),
        (tar_header(b"h", 2**20 + 1, b"x"), ArchiveTooLarge),
        (tar_header(b"h", 2**33 - 1, b"L"), ArchiveTooLarge),
        (pax({b"path": b"lost"}), ArchiveTruncated),
        (tar_header(b"a", b"\xff" * 12), ArchiveDamaged),
        (tar_header(b"a", b"-0000000001\0"), ArchiveDamaged),
        (tar_entry(b"d/", b"content"), ArchiveDamaged),
        (tar_entry(b"d", b"content", b"5"), ArchiveDamaged),
        (tar_entry(b"", b"content"), UnsafeMember),
        (tar_entry(b".", b"content"), UnsafeMember),
        (tar_entry(b"d/.", b"content"), UnsafeMember),
    ],
)
def test_odd_headers_are_refused(tmp_path: Path, data: bytes, error: type[InvalidArchive]) -> None:
    assert type(refused(tmp_path, data + END)) is error


@pytest.mark.parametrize(
    "data",
    [
        pax({b"size": b"1e3"}) + tar_entry(b"a"),
        pax({b"path": b"one"}) + tar_entry(b"L", b"two\0", b"L") + tar_entry(b"a"),
        tar_entry(b"h", b"5 a=1\n", b"x") + tar_entry(b"a"),
        tar_entry(b"h", b"99 a=1\n", b"x") + tar_entry(b"a"),
        tar_entry(b"h", b"7 abcd\n", b"x") + tar_entry(b"a"),
        pax({b"a": b"1"}) * 8 + tar_entry(b"a"),
    ],
)
def test_odd_headers_that_do_no_harm_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    check_harmless(tmp_path, data + END)


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
        assert isinstance(refused(tmp_path / str(length), (whole + END)[:length]), ArchiveTruncated)


def test_what_follows_the_end_is_refused(tmp_path: Path) -> None:
    archive = tar_entry(b"a", b"1")
    for garbage in (
        END + b"x",
        END + tar_entry(b"b", b"2"),
        bytes(512) + tar_entry(b"b", b"2"),
        bytes(2**21),
    ):
        assert isinstance(refused(tmp_path, archive + garbage), ArchiveDamaged)


def test_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    second = bytearray(tar_entry(b"b", b"2"))
    second[0] ^= 1
    assert isinstance(refused(tmp_path, tar_entry(b"a", b"1") + second + END), ArchiveDamaged)


def test_archive_without_files_is_refused(tmp_path: Path) -> None:
    for data in (END, tar_header(b"d/", type=b"5") + END, tar_entry(b"._a", b"x") + END):
        assert "no files" in refused(tmp_path, data).message


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"Rar!\x1a\x07", "RAR"),
        (b"<html>", ""),
        (b"\x89PNG\r\n\x1a\n", ""),
        (b"x" * 1000, ""),
        (b"PK", ""),
    ],
)
def test_other_formats_are_named(tmp_path: Path, data: bytes, name: str) -> None:
    found = refused(tmp_path, data + b"rest")
    assert isinstance(found, ArchiveFormat)
    assert name in found.message


def test_gzip_in_several_streams_is_one_archive(tmp_path: Path) -> None:
    whole = tar_of(FILES)
    parts = [gzip.compress(whole[start : start + 700]) for start in range(0, len(whole), 700)]
    assert unpacked(tmp_path, gzip.compress(b"").join(parts) + bytes(1000)) == FILES


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda data: data[:-1], ArchiveTruncated),
        (lambda data: data[: len(data) // 2], ArchiveTruncated),
        (lambda data: data[:11], ArchiveTruncated),
        (lambda data: data + b"x", ArchiveDamaged),
        (lambda data: data + bytes(10) + b"x", ArchiveDamaged),
        (lambda data: data + gzip.compress(b"x"), ArchiveDamaged),
        (lambda data: data[:-8] + bytes(4) + data[-4:], ArchiveDamaged),
        (lambda data: data[:50] + b"\xff" * 20 + data[70:], ArchiveDamaged),
        (gzip.compress, ArchiveFormat),
        (lambda data: gzip.compress(b""), ArchiveFormat),
        (lambda data: gzip.compress(bytes(100) + b"no tar" * 100), ArchiveFormat),
    ],
)
def test_spoilt_gzip_is_refused(
    tmp_path: Path, spoil: Callable[[bytes], bytes], error: type[InvalidArchive]
) -> None:
    data = gzip.compress(tar_of({"a": bytes(range(256)) * 8}), mtime=0)
    assert type(refused(tmp_path, spoil(data))) is error


def test_limits_hold_to_the_byte_and_to_the_entry(tmp_path: Path) -> None:
    data = tar_of({"a": b"12345", "d/b": b"123"})
    assert unpacked(tmp_path, data, ArchiveLimits(max_entries=3, max_total_bytes=8, max_file_bytes=5))
    (tmp_path / "again").mkdir()
    for limits, member in (
        (ArchiveLimits(max_entries=2), None),
        (ArchiveLimits(max_total_bytes=7), None),
        (ArchiveLimits(max_file_bytes=4), "a"),
    ):
        found = refused(tmp_path / "again", data, limits)
        assert isinstance(found, ArchiveTooLarge)
        assert found.member == member
        assert found.status == 413


def test_folders_on_the_way_count_as_entries(tmp_path: Path) -> None:
    data = tar_entry(b"a/b/c/d/e", b"1") + END
    assert isinstance(refused(tmp_path, data, ArchiveLimits(max_entries=4)), ArchiveTooLarge)


def test_gzip_of_endless_empty_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_clip.app.datasets.archives._MAX_GZIP_MEMBERS", 1000)
    data = gzip.compress(tar_of({"a": b"a"}))
    assert isinstance(refused(tmp_path, gzip.compress(b"") * 1000 + data), ArchiveDamaged)
    assert unpacked(tmp_path, gzip.compress(b"") * 900 + data) == {"a": b"a"}


def test_gzip_of_zeros_is_stopped_at_the_ratio(tmp_path: Path) -> None:
    limits = ArchiveLimits(free_bytes=2**20, max_ratio=10)
    data = gzip.compress(tar_of({"a": bytes(2**22)}))
    assert isinstance(refused(tmp_path, data, limits), ArchiveBomb)
