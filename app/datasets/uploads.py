"""An upload is received into its place: one archive, or shards as they are.

with folders.claim(dataset_id) as claim:
    received = await receive_archive(claim, request.stream(), max_bytes=settings.max_upload_bytes)
    ...                                          # commit the record, then publish the check's wake-up
"""

from collections.abc import AsyncIterable, AsyncIterator

from app.datasets.archive import SNIFF_BYTES, kind_of
from app.datasets.errors import ArchiveFormat, EmptyUpload, UploadTooLarge
from app.datasets.folders import Claim
from app.datasets.intake import ARCHIVE, SHARDS
from app.datasets.receive import Received, receive
from app.datasets.shards import shard_name

MAX_SHARDS = 10_000


async def receive_archive(claim: Claim, chunks: AsyncIterable[bytes], *, max_bytes: int) -> Received:
    """Receive an archive; what is none by its first bytes is refused as soon as these are there.

    Raises: EmptyUpload, ArchiveFormat, UploadTooLarge, StorageFull.
    """
    received = await receive(_archive_only(chunks), claim.folder / ARCHIVE, max_bytes=max_bytes)
    claim.keep_upload()
    return received


async def receive_shards(
    claim: Claim, shards: AsyncIterable[AsyncIterable[bytes]], *, max_bytes: int
) -> list[Received]:
    """Receive shards one after another, kept in this order; `max_bytes` is for all of them.

    Raises: EmptyUpload, ArchiveFormat, UploadTooLarge, StorageFull; `index` is the shard's.
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
        except (EmptyUpload, ArchiveFormat, UploadTooLarge) as error:
            error.index = index
            raise
        left -= received[-1].size_bytes
    if not received:
        raise EmptyUpload("The upload has no shards; send at least one.", param="file")
    claim.keep_upload()
    return received


async def _archive_only(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, once the first of them are those of an archive."""
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
            raise ArchiveFormat(
                "A shard must be a tar file without compression; unpack its compression first."
            )
        seen = True
        yield chunk
