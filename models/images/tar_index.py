"""WebDataset shards: the files that a pattern names, and the position of each member in them (decision 64).

A shard is an uncompressed tar file. It is indexed once, so that any member can then be read at its offset.
"""

import math
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sds_clip.models.errors import ModelError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


class PatternError(ValueError):
    """A pattern that names no files, or too many."""


_Choices = tuple[range | list[str], int]
"""The alternatives that braces stand for, and the number of digits to pad numbers to."""


def expand_braces(pattern: str, *, most: int | None = None) -> Iterator[str]:
    """Yield the names of a pattern with `{first..last}` (zeros kept) and `{a,b}`. Braces do not nest.

    Raises PatternError, before the first name, for an empty range or more than `most` names.
    """
    pieces = _BRACES.split(pattern)
    texts, choices = pieces[::2], [_choices(braces) for braces in pieces[1::2]]
    count = math.prod(len(values) for values, _ in choices)
    if most is not None and count > most:
        raise PatternError(f"The braces name {count} files; at most {most} are allowed.")
    return (_name(number, texts, choices) for number in range(count))


def _name(number: int, texts: list[str], choices: list[_Choices]) -> str:
    """Return the name with this number. The last braces vary fastest."""
    parts = [texts[-1]]
    for text, (values, width) in zip(reversed(texts[:-1]), reversed(choices), strict=True):
        number, place = divmod(number, len(values))
        parts += [str(values[place]).zfill(width), text]
    return "".join(reversed(parts))


def _choices(braces: str) -> _Choices:
    numbers = _RANGE.fullmatch(braces)
    if numbers is None:
        return braces.split(","), 0
    choices = range(int(numbers[1]), int(numbers[2]) + 1)
    if not choices:
        raise PatternError(f"The range {{{braces}}} is empty; write the smaller number first.")
    return choices, len(numbers[1])


@dataclass(frozen=True, slots=True)
class Member:
    """A file KEY.EXTENSION in a shard, and the position of its bytes."""

    name: str
    key: str
    extension: str
    offset: int
    size: int
    archive: tarfile.TarFile

    def read(self) -> bytes:
        """Return its bytes. Works only while the shard is being indexed."""
        assert self.archive.fileobj is not None
        self.archive.fileobj.seek(self.offset)
        return self.archive.fileobj.read(self.size)


def read_members(shard: Path, error: type[ModelError]) -> Iterator[Member]:
    """Yield the regular files of a shard in their order.

    A key is everything up to the first dot of the file's own name, as in WebDataset. Files without a key are
    left out.

    Raises:
        error: the shard is missing, compressed, cut short or damaged.
    """
    try:
        # "r:" accepts plain tar files only: one cannot seek in a compressed one.
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                folder, slash, file = entry.name.rpartition("/")
                stem, _, extension = file.partition(".")
                if entry.isreg() and stem:
                    yield Member(
                        entry.name,
                        folder + slash + stem,
                        extension.lower(),
                        entry.offset_data,
                        entry.size,
                        archive,
                    )
            _check_end(archive)
    except FileNotFoundError as failure:
        raise error(f"There is no shard {shard}; check the path and the range.") from failure
    except OSError as failure:
        raise error(f"{shard} cannot be read ({failure.strerror}); check the file.") from failure
    except tarfile.TarError as failure:
        raise error(
            f"{shard} is not a complete, uncompressed tar file. If it is compressed, decompress it; "
            "otherwise download it again."
        ) from failure


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError unless the archive ends with zeros.

    tarfile takes a damaged or missing header for the end of the archive.
    """
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("the archive has no end marker")
