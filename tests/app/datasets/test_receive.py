"""An upload on its way to the disk."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import BinaryIO

import pytest

import sds_clip.app.datasets.receive as receiving
from sds_clip.app.datasets.receive import Received, receive
from sds_clip.app.errors import EmptyUpload, UploadTooLarge


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def received(path: Path, chunks: Iterable[bytes], max_bytes: int = 2**30) -> Received:
    return asyncio.run(receive(stream(chunks), path, len, max_bytes=max_bytes))


@pytest.mark.parametrize("sizes", [[1], [0, 5, 0], [2**20], [2**20 - 1, 1, 1], [65_536] * 50, [3 * 2**20, 7]])
def test_upload_is_on_the_disk_with_its_hash(tmp_path: Path, sizes: list[int]) -> None:
    chunks = [bytes([number % 251]) * size for number, size in enumerate(sizes, start=1)]
    found = received(tmp_path / "upload", chunks)
    whole = b"".join(chunks)
    assert (tmp_path / "upload").read_bytes() == whole
    assert found == Received(tmp_path / "upload", len(whole), hashlib.sha256(whole).hexdigest())


def test_limit_holds_to_the_byte(tmp_path: Path) -> None:
    assert received(tmp_path / "whole", [b"12", b"345"], max_bytes=5).size_bytes == 5
    with pytest.raises(UploadTooLarge) as caught:
        received(tmp_path / "over", [b"12", b"345", b"6"], max_bytes=5)
    assert (caught.value.status, caught.value.param) == (413, "file")
    assert [left.name for left in tmp_path.iterdir()] == ["whole"]


def test_endless_upload_is_stopped_without_being_kept_in_memory(tmp_path: Path) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 2**16
            yield bytes(2**16)

    with pytest.raises(UploadTooLarge):
        asyncio.run(receive(endless(), tmp_path / "upload", len, max_bytes=2**23))
    assert given == 2**23 + 2**16
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b""]])
def test_empty_upload_is_refused(tmp_path: Path, chunks: list[bytes]) -> None:
    with pytest.raises(EmptyUpload):
        received(tmp_path / "upload", chunks)
    assert list(tmp_path.iterdir()) == []


def test_client_that_hangs_up_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(2**21)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(receive(broken(), tmp_path / "upload", len, max_bytes=2**30))
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "upload").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("upload", "link"):
        with pytest.raises(FileExistsError):
            received(tmp_path / name, [b"other"])
    assert (tmp_path / "upload").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


async def test_call_that_is_cancelled_within_a_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write that is under way ends before its file is closed."""
    began, go_on = threading.Event(), threading.Event()
    closed_too_early: list[bool] = []

    def slow_write(file: BinaryIO, data: bytes) -> None:
        began.set()
        go_on.wait(10)
        closed_too_early.append(file.closed)
        file.write(data)

    monkeypatch.setattr(receiving, "write_all", slow_write)

    upload = asyncio.create_task(
        receive(stream([bytes(2**20)] * 3), tmp_path / "upload", len, max_bytes=2**30)
    )
    await asyncio.to_thread(began.wait, 10)
    upload.cancel()
    threading.Timer(0.05, go_on.set).start()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert closed_too_early == [False]
    assert list(tmp_path.iterdir()) == []
