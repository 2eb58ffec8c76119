"""Writes an upload to disk within a limit, without holding it in memory or blocking the event loop."""

import hashlib
import os
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sds_clip.app.datasets.archives import SNIFF_BYTES, check_is_tar, kind_of
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
    received = await receive(chunks, claim.folder / ARCHIVE, kind_of, max_bytes=max_bytes)
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
            received.append(await receive(chunks, folder / shard_name(index), check_is_tar, max_bytes=left))
        except (EmptyUpload, InvalidArchive, UploadTooLarge) as error:
            error.index = index
            raise
        left -= received[-1].size_bytes
    if not received:
        raise EmptyUpload("The upload contains no shards; send at least one.", param="file")
    await to_the_end(claim.keep_upload, "keep upload")
    return received


async def receive(
    chunks: AsyncIterable[bytes], path: Path, check: Callable[[bytes], object], *, max_bytes: int
) -> Received:
    """Write an upload to `path`, which must not exist yet, and sync it to disk. `check` gets its first bytes.

    Errors from `chunks` (for example, a client that disconnects) and from `check` propagate. A cancelled call stops
    after the write that is under way.

    Raises: EmptyUpload, UploadTooLarge, StorageFull, FileExistsError. Nothing is left on disk then.
    """
    hashing = hashlib.sha256()
    with storage_errors():
        file = create_file(path)

    def write(data: bytes) -> None:
        with storage_errors():
            write_all(file, data)
        hashing.update(data)

    def finish(data: bytes) -> None:
        write(data)
        with storage_errors():
            os.fsync(file.fileno())
            file.close()
            sync_folder(path.parent)

    buffer, size_bytes, is_checked = bytearray(), 0, False
    try:
        with file:
            async for chunk in chunks:
                size_bytes += len(chunk)
                buffer += chunk
                if not is_checked and size_bytes >= SNIFF_BYTES:
                    check(bytes(buffer[:SNIFF_BYTES]))
                    is_checked = True
                if size_bytes > max_bytes:
                    raise UploadTooLarge(
                        f"The upload has more than {max_bytes} bytes, which is the limit; send less.",
                        param="file",
                    )
                if len(buffer) >= _WRITE_BYTES:
                    await to_the_end(partial(write, bytes(buffer)), "write upload")
                    buffer.clear()
            if not size_bytes:
                raise EmptyUpload("The upload has no bytes; send the content of the file.", param="file")
            if not is_checked:
                check(bytes(buffer))
            await to_the_end(partial(finish, bytes(buffer)), "write upload")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Received(path, size_bytes, hashing.hexdigest())
