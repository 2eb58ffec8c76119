"""145 archives made to do harm: each is refused and leaves nothing, or unpacks harmlessly within its caps."""


# fmt: off

import gzip
import io
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.unpack import unpack
from sds_clip.app.errors import ServiceError
from tests.app.datasets.archives import (
    BLOCK,
    END,
    ZipEntry,
    pax,
    tar_entry,
    tar_header,
    tar_of,
    zip_by_hand,
    zip_of,
)

LIMITS = ArchiveLimits(
    max_entries=200, max_total_bytes=2**21, max_file_bytes=2**20, max_ratio=10, free_bytes=2**16, max_depth=8
)
MAX32 = 0xFFFFFFFF
GOOD = tar_entry(b"good", b"1")
SPARSE = "archive_member_unsafe archive_damaged archive_truncated archive_too_large"

Case = tuple[str, bytes, str]
"""A name, an archive, and the codes with which it may be refused; "" where it must unpack, "*" where either is well."""


def tar(*entries: bytes) -> bytes:
    return GOOD + b"".join(entries) + END


def raw_pax(data: bytes) -> bytes:
    return tar_entry(b"PaxHeader", data, b"x")


def mode(kind: int) -> int:
    return (kind | 0o777) << 16


def deflated(content: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(content) + deflate.flush()


def with_end(data: bytes, place: int, value: bytes) -> bytes:
    """A zip with other bytes in its end record."""
    at = len(data) - 22 + place
    return data[:at] + value + data[at + len(value) :]


def base256(size: int) -> bytes:
    return (size & (2**96 - 1) | 1 << 95).to_bytes(12, "big")


def bombs() -> Iterator[Case]:
    zeros = bytes(2**19)
    too_much = "archive_bomb"
    yield "gzip over the ratio", gzip.compress(tar_of({"a": zeros})), too_much
    yield (
        "gzip over the ratio in many files",
        gzip.compress(tar_of({str(n): bytes(2**13) for n in range(99)})),
        too_much,
    )
    yield (
        "gzip of small streams of zeros",
        gzip.compress(tar_header(b"a", 2**20)) + gzip.compress(bytes(2**16)) * 16,
        too_much,
    )
    yield (
        "gzip bomb after the end",
        gzip.compress(tar_of({"a": b"1"})) + gzip.compress(bytes(2**21)),
        "archive_bomb archive_damaged",
    )
    yield (
        "gzip bomb in a pax header",
        gzip.compress(tar(pax({b"comment": bytes(2**19)}), tar_entry(b"a"))),
        too_much,
    )
    yield (
        "gzip bomb in a long name",
        gzip.compress(tar(tar_entry(b"L", b"n" * 2**19, b"L"), tar_entry(b"a"))),
        too_much,
    )
    yield "gzip bomb in clutter", gzip.compress(tar_of({"._a": zeros, "b": b"1"})), too_much
    yield "gzip within gzip", gzip.compress(gzip.compress(tar_of({"a": zeros}))), "archive_format"
    yield "zip over the ratio", zip_of({"a": zeros}), too_much
    yield "zip over the ratio in many files", zip_of({str(n): bytes(2**13) for n in range(99)}), too_much
    yield "zip over the ratio in clutter", zip_of({"__MACOSX/a": zeros, "b": b"1"}), too_much
    yield "zip within zip", zip_of({"inner.zip": zip_of({"a": zeros})}), ""
    yield "zip within tar.gz", gzip.compress(tar_of({"inner.zip": zip_of({"a": zeros})})), ""
    yield "tar of a large file", tar(tar_entry(b"a", bytes(2**20 + 1))), "archive_too_large"
    yield (
        "tar of too much in all",
        tar(*(tar_entry(b"%d" % n, bytes(2**19)) for n in range(5))),
        "archive_too_large",
    )
    yield (
        "zip of too much in all",
        zip_of({str(n): zeros for n in range(5)}, zipfile.ZIP_STORED),
        "archive_too_large",
    )
    yield "tar of too many files", tar_of({str(n): b"" for n in range(201)}), "archive_too_large"
    yield "zip of too many files", zip_of({str(n): b"" for n in range(201)}), "archive_too_large"
    yield (
        "tar of too many folders on the way",
        tar_of({"/".join(f"{n}.{d}" for d in range(7)): b"" for n in range(40)}),
        "archive_too_large",
    )
    yield "zip of too deep folders", zip_of({"a/" * 8 + "b": b"1"}), "archive_member_unsafe"
    yield "tar of a thousand dots", tar_of({"./" * 300 + "b": b"1"}), ""
    yield (
        "zip that states less than it holds",
        zip_by_hand(ZipEntry(content=bytes(2**19), size=100)),
        "archive_damaged",
    )
    yield (
        "zip that states 2^62 bytes",
        zip_by_hand(ZipEntry(size=MAX32, extra=struct.pack("<2HQ", 1, 8, 2**62))),
        "archive_too_large",
    )


def kinds() -> Iterator[Case]:
    unsafe = "archive_member_unsafe"
    for flag, name in ((b"1", "hard link"), (b"2", "symbolic link")):
        for target in (b"/etc/passwd", b"../../out", b"good"):
            header = bytearray(tar_header(b"l", 0, flag))
            header[157 : 157 + len(target)] = target
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            yield f"{name} to {target.decode()}", tar(bytes(header), tar_entry(b"l/a", b"1")), unsafe
    yield "link with content", tar(tar_entry(b"l", b"x" * 600, b"2")), unsafe
    yield "link by pax", tar(pax({b"linkpath": b"/etc"}), tar_entry(b"l", b"", b"2")), unsafe
    yield "link by a GNU long link", tar(tar_entry(b"K", b"/etc\0", b"K"), tar_entry(b"l", b"", b"2")), unsafe
    for flag, name in ((b"3", "character device"), (b"4", "block device"), (b"6", "pipe")):
        yield name, tar(tar_entry(b"d", b"", flag)), unsafe
    yield "Solaris's pax header without an entry", tar(tar_entry(b"d", b"", b"X")), "archive_truncated"
    for flag in (b"V", b"M", b"D", b"9", b"\xff"):
        yield f"type {flag!r}", tar(tar_entry(b"d", b"", flag)), unsafe
    yield "GNU sparse file", tar(tar_entry(b"s", b"x" * 512, b"S")), unsafe
    yield "GNU sparse file with a map without end", tar(sparse_extended(), b"\xff" * BLOCK * 9), SPARSE
    yield (
        "pax sparse 0.0",
        tar(
            pax({b"GNU.sparse.size": b"1099511627776", b"GNU.sparse.numblocks": b"1"}), tar_entry(b"s", b"x")
        ),
        SPARSE,
    )
    yield (
        "pax sparse 0.1",
        tar(pax({b"GNU.sparse.map": b"0,1,1099511627776,0"}), tar_entry(b"s", b"x")),
        SPARSE,
    )
    yield "pax sparse 0.1 of no numbers", tar(pax({b"GNU.sparse.map": b"x,y"}), tar_entry(b"s", b"x")), SPARSE
    one = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"../../s"}
    yield "pax sparse 1.0", tar(pax(one), tar_entry(b"s", b"1\n0\n1\n" + bytes(506) + b"x")), SPARSE
    yield (
        "pax sparse 1.0 with a map without end",
        tar(pax(one), tar_entry(b"s", b"9999999999\n" + b"1\n" * 5000)),
        SPARSE,
    )
    yield "Solaris's holes", tar(pax({b"SUN.holesdata": b" 0 1"}), tar_entry(b"s", b"x")), unsafe
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
        yield (
            f"zip entry of mode {kind:o}",
            zip_by_hand(ZipEntry(), ZipEntry(b"l", b"/etc", attributes=mode(kind))),
            unsafe,
        )
    yield "zip folder with content", zip_by_hand(ZipEntry(b"d/")), "archive_damaged"
    yield "zip file that says it is a folder", zip_by_hand(ZipEntry(attributes=0x10)), "archive_damaged"
    for flags in (0x0001, 0x0040, 0x2000, 0x0841):
        yield (
            f"zip entry encrypted by {flags:x}",
            zip_by_hand(ZipEntry(), ZipEntry(b"b", flags=flags)),
            "archive_encrypted",
        )
    yield "AES in zip", zip_by_hand(ZipEntry(method=99, packed=b"x")), "archive_encrypted"
    yield "bzip2 in zip", zip_by_hand(ZipEntry(method=12, packed=b"BZh91AY")), "archive_format"
    yield "patch in zip", zip_by_hand(ZipEntry(flags=0x0020)), "archive_format archive_damaged"


def sparse_extended() -> bytes:
    header = bytearray(tar_header(b"s", 0, b"S"))
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def pax_headers() -> Iterator[Case]:
    damaged = "archive_damaged"
    yield "pax header of 2 MiB", tar(pax({b"comment": b"x" * 2**21}), tar_entry(b"a")), "archive_too_large"
    yield "pax header that states 8 GiB", tar(tar_header(b"h", 2**33 - 1, b"x")), "archive_too_large"
    yield "global pax header that states 8 GiB", tar(tar_header(b"h", 2**33 - 1, b"g")), "archive_too_large"
    yield (
        "thousand pax headers",
        tar(*[pax({b"a": b"1"})] * 900, tar_entry(b"a")),
        "archive_damaged archive_too_large archive_truncated",
    )
    yield (
        "pax headers that add up",
        tar(*[pax({b"a": b"x" * 2**18})] * 5, tar_entry(b"a")),
        "archive_too_large",
    )
    yield (
        "global pax headers that add up",
        tar(*(pax({b"k%d" % n: b"x" * 2**18}, b"g") + tar_entry(b"%d" % n) for n in range(9))),
        "",
    )
    yield "pax path that climbs", tar(pax({b"path": b"a/../../b"}), tar_entry(b"a")), "archive_member_unsafe"
    yield (
        "pax path that is absolute",
        tar(pax({b"path": b"/etc/cron.d/x"}), tar_entry(b"a")),
        "archive_member_unsafe",
    )
    yield "pax path with a NUL", tar(pax({b"path": b"a\0b"}), tar_entry(b"a")), "archive_member_unsafe"
    yield (
        "pax path of another entry",
        tar(pax({b"path": b"good"}), tar_entry(b"a")),
        "archive_member_duplicate",
    )
    yield "pax path for all", tar(pax({b"path": b"all"}, b"g"), tar_entry(b"a")), damaged
    yield "pax size for all", tar(pax({b"size": b"0"}, b"g"), tar_entry(b"a", b"x")), damaged
    yield (
        "pax size smaller than the header's",
        tar(pax({b"size": b"1"}), tar_entry(b"a", b"x" * 600)),
        damaged,
    )
    yield (
        "pax size larger than the archive",
        tar(pax({b"size": b"900000"}), tar_entry(b"a", b"x")),
        "archive_truncated",
    )
    yield (
        "pax size over the limit",
        tar(pax({b"size": b"9" * 18}), tar_entry(b"a", b"x")),
        "archive_too_large",
    )
    yield "negative pax size", tar(pax({b"size": b"-512"}), tar_entry(b"a", b"x")), damaged
    yield "pax size with an underscore", tar(pax({b"size": b"1_0"}), tar_entry(b"a", b"x" * 10)), "*"
    yield "pax size of a thousand digits", tar(pax({b"size": b"1" * 5000}), tar_entry(b"a", b"x")), damaged
    yield "pax record of length 0", tar(raw_pax(b"0 a=1\n"), tar_entry(b"a")), damaged
    yield "pax record of 5,000 digits", tar(raw_pax(b"9" * 5000 + b" a=1\n"), tar_entry(b"a")), damaged
    yield "pax digits that tarfile searches for hours", tar(raw_pax(b"1" * 900_000), tar_entry(b"a")), damaged
    yield (
        "pax record longer than its header",
        tar(raw_pax(b"999 path=../a\n"), tar_entry(b"a")),
        "archive_member_unsafe",
    )
    yield (
        "pax header of an odd charset",
        tar(pax({b"hdrcharset": b"BINARY", b"path": b"caf\xe9"}), tar_entry(b"a")),
        "archive_member_unsafe",
    )
    yield "pax charset that is none", tar(raw_pax(b"20 hdrcharset=\xff\xff\n"), tar_entry(b"a")), "*"
    yield "pax header without an entry", tar(pax({b"path": b"lost"})), "archive_truncated"
    yield "pax header before a damaged one", tar(pax({b"path": b"b"}), b"\1" * BLOCK), damaged


def names() -> Iterator[Case]:
    unsafe, twice = "archive_member_unsafe", "archive_member_duplicate"
    for name in (
        b"../a",
        b"a/../../b",
        b"..",
        b"/a",
        b"//a",
        b"C:\\a",
        b"c:a",
        b"a\\..\\b",
        b"a\nb",
        b"a\x7f",
        b"d/.",
        b"n" * 256,
    ):
        yield (
            f"tar name {name[:20]!r}",
            tar(tar_entry(b"L", name + b"\0", b"L"), tar_entry(b"x", b"1")),
            unsafe,
        )
        yield f"zip name {name[:20]!r}", zip_by_hand(ZipEntry(b"good"), ZipEntry(name)), unsafe
    yield "tar name in Latin-1", tar(tar_entry(b"caf\xe9", b"1")), unsafe
    yield "zip name in code page 437", zip_by_hand(ZipEntry(b"caf\x82")), unsafe
    yield "zip name that says UTF-8 and is none", zip_by_hand(ZipEntry(b"\xff\xfe", flags=0x0800)), unsafe
    yield "zip name with half a surrogate pair", zip_by_hand(ZipEntry(b"\xed\xa0\x80", flags=0x0800)), unsafe
    yield "zip name with a NUL", zip_by_hand(ZipEntry(b"a.png\0.sh")), unsafe
    yield "zip name in UTF-8 that does not say so", zip_by_hand(ZipEntry("é".encode())), ""
    yield (
        "GNU long name over two long names",
        tar(tar_entry(b"L", b"../a\0", b"L"), tar_entry(b"L", b"b\0", b"L"), tar_entry(b"x")),
        "*",
    )
    yield "GNU long name that states 8 GiB", tar(tar_header(b"L", 2**33 - 1, b"L")), "archive_too_large"
    yield "GNU long name without an entry", tar(tar_entry(b"L", b"a\0", b"L")), "archive_truncated"
    for first, second in (
        ("a", "a"),
        ("a.PNG", "A.png"),
        ("é", "e\u0301"),
        ("ﬀ", "FF"),
        ("ß", "SS"),
        ("K", "k"),
        ("d/a", "D/b"),
        ("d", "d/a"),
        ("./a", "a"),
    ):
        label = f"{first} and {second.encode('unicode_escape').decode()}"
        yield f"tar of {label}", tar(tar_entry(first.encode(), b"1"), tar_entry(second.encode(), b"2")), twice
        yield f"zip of {label}", zip_by_hand(ZipEntry(first.encode()), ZipEntry(second.encode())), twice


def sizes_and_ends() -> Iterator[Case]:
    damaged, truncated = "archive_damaged", "archive_truncated"
    yield "size of -1 in octal", tar(tar_header(b"a", b"-0000000001\0")), damaged
    yield "size of -1 in base 256", tar(tar_header(b"a", b"\xff" * 12)), damaged
    yield "size of -512 in base 256", tar(tar_header(b"a", b"\xff" * 10 + b"\xfe\0")), damaged
    yield "size of 2^80 in base 256", tar(tar_header(b"a", base256(2**80))), "archive_too_large"
    yield "size of 7 in base 256", tar(tar_header(b"a", base256(7)) + b"content" + bytes(505)), ""
    yield "size that is no number", tar(tar_header(b"a", b"12345678x\0\0\0")), damaged
    yield "folder with content", tar(tar_entry(b"d", b"x", b"5")), damaged
    yield (
        "negative extended header",
        tar(tar_header(b"h", b"\xff" * 12, b"x")),
        "archive_truncated",
    )
    yield "tar cut in an entry", tar(tar_entry(b"a", b"x" * 2000))[:-2000], truncated
    yield "tar cut in a header", tar(tar_entry(b"a", b"1"))[: 2 * BLOCK + 100], truncated
    yield "tar without its end", GOOD, truncated
    yield "tar after tar", tar() + tar(), damaged
    yield "tar with a word after it", tar() + b"#!/bin/sh", damaged
    yield "tar damaged in the middle", tar(b"\1" + tar_entry(b"a", b"1")[1:]), damaged
    yield "tar with zeros without end", tar() + bytes(2**21), damaged
    yield "gzip cut", gzip.compress(tar())[:-9], truncated
    yield (
        "gzip with a wrong checksum",
        gzip.compress(tar())[:-8] + b"\0\0\0\0" + gzip.compress(tar())[-4:],
        damaged,
    )
    yield "gzip with a word after it", gzip.compress(tar()) + b"#!/bin/sh", damaged
    yield "gzip after gzip, one archive", gzip.compress(tar()[:700]) + gzip.compress(tar()[700:]), ""
    yield "gzip after gzip, two archives", gzip.compress(tar()) * 2, damaged
    yield "zip cut", zip_of({"a": b"1" * 99})[:-30], truncated
    yield "zip with a word after it", zip_of({"a": b"1"}) + b"#!/bin/sh", damaged
    yield "zip before zip", zip_of({"a": b"1"}) + zip_of({"b": b"2"}), damaged
    yield "zip in a zip's comment", zip_by_hand(ZipEntry(), comment=zip_of({"b": b"2"})), damaged


def zip_lies() -> Iterator[Case]:
    damaged = "archive_damaged"
    big = ZipEntry(b"aaaa", b"x" * 9000)
    yield "two entries over one content", zip_by_hand(big, ZipEntry(b"bbbb", b"x" * 9000, offset=0)), damaged
    quoted = ZipEntry(b"aaaa", method=0, content=big.local())
    outer = len(quoted.local()) - len(big.local())
    yield "entry within an entry", zip_by_hand(quoted, ZipEntry(b"aaab", b"x" * 9000, offset=outer)), damaged
    yield "entry that begins in the directory", zip_by_hand(ZipEntry(offset=60)), damaged
    yield "entry beyond the file", zip_by_hand(ZipEntry(offset=2**31)), damaged
    yield (
        "entry at 2^63",
        zip_by_hand(ZipEntry(offset=MAX32, extra=struct.pack("<2HQ", 1, 8, 2**63))),
        damaged,
    )
    yield "content beyond the file", zip_by_hand(ZipEntry(stated_packed=10**6)), damaged
    yield (
        "zip64 size that is missing",
        zip_by_hand(ZipEntry(size=MAX32, extra=struct.pack("<2HL", 1, 4, 7))),
        damaged,
    )
    yield (
        "zip64 extra that is cut",
        zip_by_hand(ZipEntry(size=MAX32, extra=struct.pack("<2H", 1, 8))),
        damaged,
    )
    yield (
        "zip64 packed size of 2^63",
        zip_by_hand(ZipEntry(stated_packed=MAX32, extra=struct.pack("<2HQ", 1, 8, 2**63))),
        damaged,
    )
    yield (
        "zip64 number of entries",
        zip_by_hand(ZipEntry(), count=0xFFFF, zip64=(2**40, 51, 44)),
        "archive_too_large archive_damaged",
    )
    yield "zip64 directory at 2^63", zip_by_hand(ZipEntry(), cd_offset=MAX32, zip64=(1, 51, 2**63)), damaged
    yield (
        "zip64 directory of another size",
        zip_by_hand(ZipEntry(), cd_size=MAX32, zip64=(1, 2**60, 44)),
        damaged,
    )
    yield "directory of no entries", zip_by_hand(ZipEntry(), count=0), damaged
    yield "directory of more entries", zip_by_hand(ZipEntry(), count=2), damaged
    yield "directory elsewhere", zip_by_hand(ZipEntry(), cd_offset=3), damaged
    yield "directory of another disk", with_end(zip_by_hand(ZipEntry()), 4, b"\1"), "archive_format"
    yield "empty zip", zip_by_hand(), "archive_invalid"
    yield "another name in the local header", zip_by_hand(ZipEntry(b"a.txt", local_name=b"../a.")), damaged
    yield "another size in the local header", zip_by_hand(ZipEntry(local_size=99)), "*"
    yield "encrypted in the local header alone", zip_by_hand(ZipEntry(local_flags=1)), "*"
    yield "wrong checksum", zip_by_hand(ZipEntry(crc=1)), damaged
    yield "less content than stated", zip_by_hand(ZipEntry(size=99)), damaged
    yield (
        "deflate that is cut",
        zip_by_hand(ZipEntry(packed=deflated(b"content" * 99)[:-4], content=b"content" * 99)),
        damaged,
    )
    yield "deflate that is none", zip_by_hand(ZipEntry(packed=b"\xff" * 20)), damaged
    descriptor = struct.pack("<4s3L", b"PK\7\10", zlib.crc32(b"content"), 9, 7)
    yield "true data descriptor", zip_by_hand(ZipEntry(flags=8, after=descriptor)), ""
    yield "lying data descriptor", zip_by_hand(ZipEntry(flags=8, after=b"PK\7\10" + b"\xff" * 12)), "*"
    yield "data descriptor that is missing", zip_by_hand(ZipEntry(flags=8)), "*"
    yield (
        "zip for a version to come",
        zip_by_hand(ZipEntry()).replace(b"PK\1\2\x14\3\x14\0", b"PK\1\2\x14\3\xff\0"),
        "archive_format",
    )


CASES = [*bombs(), *kinds(), *pax_headers(), *names(), *sizes_and_ends(), *zip_lies()]


def test_there_are_as_many_archives_as_promised() -> None:
    assert len({name for name, _, _ in CASES}) == len(CASES) >= 145


@pytest.mark.parametrize(("data", "codes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_hostile_archive_is_refused_or_harmless(tmp_path: Path, data: bytes, codes: str) -> None:
    (tmp_path / "upload").write_bytes(data)
    refusal = None
    try:
        unpack(tmp_path / "upload", tmp_path / "out", LIMITS)
    except ServiceError as error:
        refusal = error
    if refusal is None:
        assert codes in ("", "*")
        assert {left.name for left in tmp_path.iterdir()} == {"upload", "out"}
        check_unpacked(tmp_path / "out")
        return
    assert [left.name for left in tmp_path.iterdir()] == ["upload"]
    assert codes == "*" or refusal.code in codes.split(), refusal
    assert "\n" not in refusal.message
    assert not refusal.retryable


def check_unpacked(out: Path) -> None:
    paths = list(out.rglob("*"))
    assert all(stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR) for path in paths)
    files = [path for path in paths if path.is_file()]
    assert len(paths) <= LIMITS.max_entries
    assert sum(path.stat().st_size for path in files) <= LIMITS.max_total_bytes
    assert max(path.stat().st_size for path in files) <= LIMITS.max_file_bytes
    folded = {unicodedata.normalize("NFD", str(path)).casefold() for path in paths}
    assert len(folded) == len(paths)


def test_streamed_zip_is_harmless(tmp_path: Path) -> None:
    """Sizes that follow the content, as a pipe's zip has them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"content")
    (tmp_path / "upload").write_bytes(buffer.getvalue())
    unpack(tmp_path / "upload", tmp_path / "out", LIMITS)
    assert (tmp_path / "out" / "a").read_bytes() == b"content"
