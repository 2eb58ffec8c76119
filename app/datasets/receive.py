"""Writes an upload to disk within a limit, without holding it in memory or blocking the event loop."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from sds_clip.app.datasets.archives import SNIFF_BYTES, kind_of, no_tar
from sds_clip.app.datasets.folders import (
    ARCHIVE,
    SHARDS,
    Claim,
    create_file,
    shard_name,
    storage_errors,
    write_all,
)
from sds_clip.app.errors import EmptyUpload, InvalidArchive, UploadTooLarge
from sds_clip.app.threads import to_the_end
from sds_clip.models.atomic import sync_folder

MAX_SHARDS = 10_000
_WRITE_BYTES = 2**20


@dataclass(frozen=True)
class Received:
    """A complete upload, on disk."""

    path: Path
    size_bytes: int
    sha256: str


async def receive_archive(claim: Claim, chunks: AsyncIterable[bytes], *, max_bytes: int) -> Received:
    """Receive an archive. It is refused as soon as its first bytes show that it is not one.

    Raises: EmptyUpload, InvalidArchive, UploadTooLarge, StorageFull.
    """
    received = await receive(_archive_only(chunks), claim.folder / ARCHIVE, max_bytes=max_bytes)
    await to_the_end(claim.keep_upload, "keep upload")
    return received


async def receive_shards(
    claim: Claim, shards: AsyncIterable[AsyncIterable[bytes]], *, max_bytes: int
) -> list[Received]:
    """Receive shards one after another, stored in this order. `max_bytes` applies to their sum.

    Raises: EmptyUpload, InvalidArchive, UploadTooLarge, StorageFull; `index` is the shard's.
    """
    folder = claim.folder / SHARDS
    folder.mkdir()
    received: list[Received] = []
    left = max_bytes
    async for chunks in shards:
        index = len(received)
        if index == MAX_SHARDS:
            raise UploadTooLarge(f"The upload has more than {MAX_SHARDS} shards; send fewer, larger ones.")
        try:
            received.append(await receive(_tar_only(chunks), folder / shard_name(index), max_bytes=left))
        except (EmptyUpload, InvalidArchive, UploadTooLarge) as error:
            error.index = index
            raise
        left -= received[-1].size_bytes
    if not received:
        raise EmptyUpload("The upload contains no shards; send at least one.", param="file")
    await to_the_end(claim.keep_upload, "keep upload")
    return received


async def receive(chunks: AsyncIterable[bytes], path: Path, *, max_bytes: int) -> Received:
    """Write an upload to `path`, which must not exist yet, and sync it to disk.

    Errors from `chunks` (for example, a client that disconnects) propagate, and a cancelled call stops at
    once.

    Raises: EmptyUpload, UploadTooLarge, StorageFull, FileExistsError. Nothing is left on disk then.
    """
    sink = _Sink(path)
    buffer: list[bytes] = []
    waiting = size_bytes = 0
    try:
        async for chunk in chunks:
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise UploadTooLarge(
                    f"The upload has more than {max_bytes} bytes, which is the limit; send less.",
                    param="file",
                )
            buffer.append(chunk)
            waiting += len(chunk)
            if waiting >= _WRITE_BYTES:
                await asyncio.to_thread(sink.write, b"".join(buffer))
                buffer, waiting = [], 0
        if not size_bytes:
            raise EmptyUpload("The upload has no bytes; send the content of the file.", param="file")
        await asyncio.to_thread(sink.finish, b"".join(buffer))
    except BaseException:
        sink.discard()
        raise
    return Received(path, size_bytes, sink.sha256)


async def _archive_only(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the same bytes once the first of them are known to be an archive's."""
    head = b""
    async for chunk in chunks:
        if len(head) < SNIFF_BYTES:
            head += chunk
            if len(head) < SNIFF_BYTES:
                continue
            kind_of(head)
            yield head
        else:
            yield chunk
    if head and len(head) < SNIFF_BYTES:
        kind_of(head)
        yield head


async def _tar_only(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    seen = False
    async for chunk in _archive_only(chunks):
        if not seen and kind_of(chunk) != "tar":
            raise no_tar()
        seen = True
        yield chunk


class _Sink:
    """The file being written, used by one thread at a time.

    A cancelled call leaves its thread writing, and `discard` waits for that write. If the file were closed
    earlier, its descriptor could be reused, and the write would go to another file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        with storage_errors():
            self._file = create_file(path)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        with self._lock, storage_errors():
            if not self._file.closed:  # it may have been discarded before this thread started
                write_all(self._file, data)
                self._hash.update(data)

    def finish(self, data: bytes) -> None:
        self.write(data)
        with self._lock, storage_errors():
            if not self._file.closed:
                os.fsync(self._file.fileno())
                self._file.close()
                sync_folder(self._path.parent)

    def discard(self) -> None:
        with self._lock:
            self._file.close()
            self._path.unlink(missing_ok=True)
