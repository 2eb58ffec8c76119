"""What every archive is read as: entries one after another, each with its content to be read or left."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from app.datasets.errors import ArchiveBomb, ArchiveTruncated
from app.datasets.limits import ArchiveLimits

CHUNK = 256 * 1024


@dataclass(frozen=True)
class Member:
    """A file or a folder. `content` may be read until the next entry is asked for, and need not be."""

    name: str
    is_folder: bool
    size_bytes: int
    """As the archive states it; a reader never gives more, and raises where there is less."""
    content: Iterator[bytes]


class Source(Protocol):
    """A stretch of bytes read once, from front to back, in bounded memory."""

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes; none at the end.

        Raises: InvalidArchive.
        """

    def skip(self, count: int) -> None:
        """Go on by `count` bytes.

        Raises: ArchiveTruncated, and what `read` raises.
        """


def read_exactly(source: Source, count: int) -> bytes:
    """`count` bytes, which the caller keeps small.

    Raises: ArchiveTruncated.
    """
    return b"".join(read_chunks(source, count))


def read_chunks(source: Source, count: int) -> Iterator[bytes]:
    """The next `count` bytes in pieces.

    Raises: ArchiveTruncated.
    """
    while count:
        chunk = source.read(min(count, CHUNK))
        if not chunk:
            raise ArchiveTruncated
        count -= len(chunk)
        yield chunk


def check_ratio(packed_bytes: int, unpacked_bytes: int, limits: ArchiveLimits) -> None:
    """Stop a bomb while it unpacks.

    Raises: ArchiveBomb.
    """
    if unpacked_bytes > limits.free_bytes + limits.max_ratio * packed_bytes:
        raise ArchiveBomb(
            f"The archive unpacks to more than {limits.max_ratio} times its size; send the files less compressed."
        )
