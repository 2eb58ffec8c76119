"""Uploaded shards: their entries looked at, nothing unpacked."""

import gzip
from pathlib import Path

import pytest

from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.folders import shard_name
from sds_clip.app.datasets.unpack import check_shard, check_shards
from sds_clip.app.errors import InvalidRequest
from sds_clip.models.data.shards import read_shards
from tests.app.datasets.archives import END, tar_entry, tar_of, zip_of
from tests.pictures import picture

SAMPLES = {"a/0001.png": picture(1), "a/0001.txt": b"one", "a/0002.png": picture(2), "a/0002.txt": b"two"}


def test_shard_that_passes_the_check_can_be_trained_on(tmp_path: Path) -> None:
    shard = tmp_path / shard_name(0)
    shard.write_bytes(tar_of(SAMPLES))
    check_shard(shard)
    check_shards([shard, shard])
    assert [sample.captions for sample in read_shards(str(tmp_path)).samples] == [("one",), ("two",)]


def test_shards_sort_by_their_numbers() -> None:
    names = [shard_name(number) for number in (0, 9, 10, 99_999, 100_000)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "upload_empty"),
        (gzip.compress(tar_of(SAMPLES)), "archive_format"),
        (zip_of(SAMPLES), "archive_format"),
        (tar_entry(b"../a", b"1") + END, "archive_member_unsafe"),
        (tar_entry(b"a", type=b"2") + END, "archive_member_unsafe"),
        (tar_entry(b"a.png") + tar_entry(b"a.PNG") + END, "archive_member_duplicate"),
        (tar_entry(b"a", b"12345678901") + END, "archive_too_large"),
        (tar_of({str(number): b"" for number in range(6)}), "archive_too_large"),
        (tar_of(SAMPLES)[:1500], "archive_truncated"),
        (tar_of(SAMPLES)[:2048], "archive_truncated"),
        (tar_of({"a": b"1"}) + b"x", "archive_damaged"),
        (END, "archive_invalid"),
    ],
)
def test_bad_shard_is_refused_and_numbered(tmp_path: Path, data: bytes, code: str) -> None:
    good, bad = tmp_path / shard_name(0), tmp_path / shard_name(1)
    good.write_bytes(tar_of({"a": b"1"}))
    bad.write_bytes(data)
    limits = ArchiveLimits(max_file_bytes=10, max_entries=5)
    if code == "archive_truncated":
        limits = ArchiveLimits()
    with pytest.raises(InvalidRequest) as caught:
        check_shards([good, bad], limits)
    assert (caught.value.code, caught.value.index) == (code, 1)
