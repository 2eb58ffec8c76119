"""Archives of any content, and archives spoilt anywhere: as independent programs read them, or refused."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.unpack import unpack
from sds_clip.app.errors import EmptyUpload, InvalidArchive
from tests.app.datasets.archives import pax, tar_entry, tar_of, tree, zip_of

LIMITS = ArchiveLimits(max_file_bytes=2**20, max_total_bytes=2**21, max_entries=100)
PARTS = st.text(st.sampled_from("abAé日 .-_%"), min_size=1, max_size=5).filter(
    lambda part: part.strip(".") and not part.startswith("._")
)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
FILES = st.dictionaries(NAMES, st.binary(max_size=1500), min_size=1, max_size=5)
SEEDS = [
    tar_of({"a.txt": b"one", "folder/b.bin": bytes(700), "n" * 120: b"long"}),
    pax({b"path": b"pax", b"size": b"3"})
    + tar_entry(b"x", b"abc")
    + tar_entry(b"gnu", b"y" * 20, b"L")
    + bytes(1024),
    zip_of({"a.txt": b"one", "folder/b.bin": bytes(700)}),
    zip_of({"a.txt": b"one", "b": bytes(range(256))}, zipfile.ZIP_STORED),
]
SEEDS.append(gzip.compress(SEEDS[0], mtime=0))


def outcome(data: bytes) -> dict[str, bytes] | None:
    """The files, or None for a refusal, after which nothing may be left."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "upload").write_bytes(data)
        try:
            unpack(folder / "upload", folder / "out", LIMITS)
        except (InvalidArchive, EmptyUpload):
            assert [left.name for left in folder.iterdir()] == ["upload"]
            return None
        return tree(folder / "out")


def extracted(data: bytes) -> dict[str, bytes]:
    """By the standard library, which nothing in the package uses."""
    with TemporaryDirectory() as name:
        if data.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive.extractall(name)
        else:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(name, filter="data")
        return tree(Path(name))


@settings(max_examples=40)
@given(FILES, st.sampled_from(["tar", "tar.gz", "zip"]))
def test_accepted_archive_holds_what_the_standard_library_finds(files: dict[str, bytes], kind: str) -> None:
    data = zip_of(files) if kind == "zip" else tar_of(files)
    if kind == "tar.gz":
        data = gzip.compress(data)
    found = outcome(data)
    if found is not None:
        assert found == extracted(data)
        assert sorted(found.values()) == sorted(files.values())


@settings(max_examples=120)
@given(st.data())
def test_archive_spoilt_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    spoilt = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(spoilt) - 1))
        change = data.draw(st.sampled_from(["set", "cut", "insert", "remove", "ones"]))
        if change == "set":
            spoilt[place] = data.draw(st.integers(0, 255))
        elif change == "cut":
            del spoilt[place + 1 :]
        elif change == "insert":
            spoilt[place:place] = data.draw(st.binary(max_size=20))
        elif change == "remove":
            del spoilt[place : place + data.draw(st.integers(0, min(20, len(spoilt) - 1)))]
        else:
            spoilt[place : place + 4] = b"\xff" * 4
        if not spoilt:
            break
    outcome(bytes(spoilt))


@settings(max_examples=50)
@given(st.sampled_from([b"PK\3\4", b"PK\5\6", b"\x1f\x8b\x08", b""]), st.binary(max_size=600))
def test_any_bytes_are_refused(head: bytes, rest: bytes) -> None:
    assert outcome(head + rest) is None


@settings(max_examples=80)
@given(st.integers(0, 511), st.binary(min_size=1, max_size=24), st.integers(0, 1))
def test_header_changed_with_a_true_checksum_is_read_or_refused(
    place: int, change: bytes, entry: int
) -> None:
    data = bytearray(tar_entry(b"a", b"x" * 20) + tar_entry(b"b", b"y") + bytes(1024))
    start = 1024 * entry
    data[start + place : start + place + len(change)] = change
    data = data[: 512 * 6]
    header = data[start : start + 512]
    header[148:156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    outcome(bytes(data))
