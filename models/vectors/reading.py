"""Read images ahead in threads, and gather them into parts."""

import hashlib
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sds_clip.models.ahead import in_order
from sds_clip.models.findings import Finding
from sds_clip.models.images.decode import ImageError
from sds_clip.models.images.files import ImageFileError
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.vectors.encoder import Encoder
from sds_clip.models.vectors.entries import read_entry
from sds_clip.models.vectors.known import Known

PART_ENTRIES = 4096
"""A part has at most this many entries, however few of them are new."""


@dataclass(frozen=True)
class Image:
    """An entry that was read: prepared for the encoder, known by an earlier row, or with its problem."""

    path: str
    sha256: str = ""
    prepared: Any = None
    row: int | None = None
    problem: Finding | None = None

    @property
    def is_new(self) -> bool:
        return self.row is None and self.problem is None


def read_image(entry: ImageRef, encoder: Encoder, known: Known) -> Image:
    try:
        entry.name.encode()
        data = read_entry(entry)
        digest = hashlib.sha256(data)
        row = known.find(digest.digest())
        prepared = encoder.prepare(data) if row is None else None
    except UnicodeEncodeError:
        return Image(entry.name, problem=Finding("bad_name", "The file's name is not UTF-8; rename it."))
    except ImageFileError as error:
        return Image(entry.name, problem=Finding("file_unreadable", f"The file {error}."))
    except ImageError as error:
        return Image(entry.name, problem=Finding(error.code, str(error)))
    return Image(entry.name, digest.hexdigest(), prepared, row)


def read_ahead(
    entries: Iterator[ImageRef], read: Callable[[ImageRef], Image], *, batch_size: int, threads: int
) -> Generator[Image, None, None]:
    """Yield the images in order; threads read the next two batches meanwhile."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        yield from in_order(pool, read, entries, 2 * batch_size)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def gathered_parts(images: Iterator[Image], batch_size: int) -> Iterator[list[Image]]:
    """Yield the images of each part: as many as there are until a batch of new ones is full."""
    gathered: list[Image] = []
    new = 0
    for image in images:
        gathered.append(image)
        new += image.is_new
        if new == batch_size or len(gathered) == PART_ENTRIES:
            yield gathered
            gathered, new = [], 0
    if gathered:
        yield gathered
