"""Archives made to use up the disk, the memory or the processor: little of these is used before the refusal."""

import gzip
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.app.datasets.archives import END, ZipEntry, pax, tar_entry, tar_header, zip_by_hand

GIB = 2**30
BLOCK = 2**26  # of zeros, compressed once and repeated

UNPACK = """
import resource, sys
from pathlib import Path
from sds_clip.app.errors import InvalidArchive
from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.unpack import unpack

folder = Path(sys.argv[1])
most = int(sys.argv[2])
# Were more than this written to a file, it would be another error.
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(folder / "upload", folder / "out", ArchiveLimits(max_file_bytes=2**40, max_total_bytes=2**40))
except InvalidArchive as error:
    print(error.code)
else:
    print("unpacked")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def unpacked_apart(folder: Path, data: bytes, most_bytes: int) -> tuple[str, int]:
    """The outcome in a process of its own, and the bytes by which its memory grew."""
    (folder / "upload").write_bytes(data)
    command = [sys.executable, "-c", UNPACK, str(folder), str(most_bytes)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code, grown_kb = done.stdout.split()
    return code, int(grown_kb) * 1024


def zeros(count: int) -> bytes:
    """A gzip file of zeros, in streams of 64 MiB."""
    return gzip.compress(bytes(BLOCK)) * (count // BLOCK)


def test_ten_gigabytes_of_zeros_are_stopped_after_some_megabytes(tmp_path: Path) -> None:
    size = 10 * GIB
    data = (
        gzip.compress(tar_header(b"zeros", b"\x80" + size.to_bytes(11, "big")))
        + zeros(size)
        + gzip.compress(END)
    )
    assert len(data) < 12_000_000
    code, grown = unpacked_apart(tmp_path, data, 2**27)
    assert code == "archive_bomb"
    assert grown < 2**24
    assert [left.name for left in tmp_path.iterdir()] == ["upload"]


def test_zip_of_ten_gigabytes_is_refused_by_what_it_states(tmp_path: Path) -> None:
    size = 10 * GIB
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(bytes(BLOCK)) + deflate.flush()
    wide = struct.pack("<2HQ", 1, 8, size)
    bomb = ZipEntry(b"zeros", packed=packed, size=0xFFFFFFFF, extra=wide)
    code, grown = unpacked_apart(tmp_path, zip_by_hand(bomb), 0)
    assert code == "archive_bomb"
    assert grown < 2**24


def test_zip_that_states_a_little_and_holds_much_is_stopped_at_the_little(tmp_path: Path) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(bytes(BLOCK)) + deflate.flush()
    liar = ZipEntry(b"zeros", packed=packed, size=1000)
    code, grown = unpacked_apart(tmp_path, zip_by_hand(liar), 1000)
    assert code == "archive_damaged"
    assert grown < 2**24


def test_whole_large_file_passes_through_little_memory(tmp_path: Path) -> None:
    size = 2**26
    data = tar_header(b"a", size) + bytes(size) + END
    code, grown = unpacked_apart(tmp_path, data, size)
    assert code == "unpacked"
    assert (tmp_path / "out" / "a").stat().st_size == size
    assert grown < 2**24


def of_a_million_entries(stated: int) -> bytes:
    """A zip whose directory has a million entries over one; a number over 65,535 is stated in its 64-bit end."""
    first = ZipEntry(b"a").local()
    directory = ZipEntry(b"a").central(0) * 1_000_000
    end = b""
    if stated > 0xFFFF:
        end += struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, stated, stated, len(directory), len(first)
        )
        end += struct.pack("<4sLQL", b"PK\6\7", 0, len(first) + len(directory), 1)
        stated = 0xFFFF
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, stated, stated, len(directory), len(first), 0)
    return first + directory + end


def over_one_value() -> bytes:
    """Half a million records, each with a name that reaches to the only value."""
    return tar_entry(b"h", b"2 " * 500_000 + b"=", b"x") + tar_entry(b"a") + END


def copied_for_each() -> bytes:
    """60,000 global records, and headers for each of which tarfile copies them."""
    records = b"".join(b"8 %04x=\n" % key for key in range(60_000))
    return tar_entry(b"h", records, b"g") + pax({b"a": b"1"}) * 250 + tar_entry(b"a") + END


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (partial(of_a_million_entries, 1_000_000), "archive_too_large"),
        (partial(of_a_million_entries, 2**40), "archive_too_large"),
        (partial(of_a_million_entries, 1_000_000 % 2**16), "archive_damaged"),
        (over_one_value, "archive_damaged"),
        (copied_for_each, "archive_too_large"),
    ],
)
def test_headers_that_would_take_gigabytes_are_refused_before(
    tmp_path: Path, make: Callable[[], bytes], code: str
) -> None:
    found, grown = unpacked_apart(tmp_path, make(), 0)
    assert found == code
    assert grown < 2**28
