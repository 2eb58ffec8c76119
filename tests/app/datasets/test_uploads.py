"""Uploads received into their places."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from sds_clip.app.datasets.folders import DatasetFolders
from sds_clip.app.datasets.receive import Received, receive_archive, receive_shards
from sds_clip.app.errors import EmptyUpload, InvalidArchive, ServiceError
from tests.app.datasets.archives import tar_of, tree, zip_of

TAR = tar_of({"a": b"1"})


async def stream(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def each(shards: Sequence[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    for shard in shards:
        yield stream(shard, 700)


def archive_received(
    folders: DatasetFolders, data: bytes, *, size: int = 700, max_bytes: int = 2**20
) -> Received:
    with folders.claim("ds_1") as claim:
        return asyncio.run(receive_archive(claim, stream(data, size), max_bytes=max_bytes))


def shards_received(
    folders: DatasetFolders, shards: Sequence[bytes], max_bytes: int = 2**20
) -> list[Received]:
    with folders.claim("ds_1") as claim:
        return asyncio.run(receive_shards(claim, each(shards), max_bytes=max_bytes))


@pytest.mark.parametrize("size", [1, 511, 512, 513, 100_000])
@pytest.mark.parametrize("data", [TAR, gzip.compress(TAR), zip_of({"a": b"1"})], ids=["tar", "tar.gz", "zip"])
def test_archive_is_kept_byte_for_byte(tmp_path: Path, data: bytes, size: int) -> None:
    folders = DatasetFolders(tmp_path)
    assert archive_received(folders, data, size=size).size_bytes == len(data)
    assert tree(tmp_path) == {"uploads/ds_1/archive": data}


def test_what_is_no_archive_is_refused_by_its_first_bytes(tmp_path: Path) -> None:
    asked = 0

    async def pictures() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"\x89PNG" * 64

    folders = DatasetFolders(tmp_path)
    with pytest.raises(InvalidArchive) as caught, folders.claim("ds_1") as claim:
        asyncio.run(receive_archive(claim, pictures(), max_bytes=2**40))
    assert caught.value.code == "archive_format"
    assert asked == 2
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "upload_empty"), (b"short", "archive_format"), (TAR + bytes(2**20), "upload_too_large")],
)
def test_refused_archive_leaves_nothing(tmp_path: Path, data: bytes, code: str) -> None:
    folders = DatasetFolders(tmp_path)
    with pytest.raises(ServiceError) as caught:
        archive_received(folders, data)
    assert caught.value.code == code
    assert tree(tmp_path) == {}
    assert list(folders.work.iterdir()) == []


def test_shards_are_kept_in_their_order(tmp_path: Path) -> None:
    shards = [tar_of({str(number): b"x"}) for number in range(12)]
    assert len(shards_received(DatasetFolders(tmp_path), shards)) == 12
    assert list(tree(tmp_path / "uploads" / "ds_1" / "shards").values()) == shards


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (gzip.compress(TAR), "archive_format"),
        (zip_of({"a": b"1"}), "archive_format"),
        (b"text", "archive_format"),
        (b"", "upload_empty"),
        (TAR, "upload_too_large"),
    ],
    ids=["compressed", "zip", "text", "empty", "too-large"],
)
def test_bad_shard_is_numbered_and_nothing_is_left(tmp_path: Path, bad: bytes, code: str) -> None:
    with pytest.raises(ServiceError) as caught:
        shards_received(DatasetFolders(tmp_path), [TAR, bad], max_bytes=2 * len(TAR) - 1)
    assert (caught.value.code, caught.value.index) == (code, 1)
    assert tree(tmp_path) == {}


def test_upload_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmptyUpload):
        shards_received(DatasetFolders(tmp_path), [])
    assert tree(tmp_path) == {}
