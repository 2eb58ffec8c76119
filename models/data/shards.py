"""WebDataset shards, indexed once so that samples can be read in any order (decision 64: exact resuming)."""

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sds_clip.models.data.pairs import Sample, StoredPairs
from sds_clip.models.errors import DataError
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.tar_index import (
    IMAGE_EXTENSIONS,
    Member,
    PatternError,
    expand_braces,
    read_members,
)

MAX_TEXT_BYTES = 2**20  # for one caption member


@dataclass
class _Members:
    key: str
    shard: Path
    image: ImageRef | None = None
    txt: str | None = None
    json: str | None = None


class ShardPairs(StoredPairs):
    """Samples whose images are members of tar files."""

    def __init__(self, indexed: Iterable[tuple[Sample, ImageRef | None]]) -> None:
        samples: list[Sample] = []
        self._shards: list[Path | None] = []
        self._ranges = array("q")
        for sample, image in indexed:
            samples.append(sample)
            self._shards.append(image.path if image else None)
            self._ranges.extend((image.offset, image.size or 0) if image else (0, 0))
        super().__init__(samples)

    def ref(self, index: int) -> ImageRef | None:
        shard = self._shards[index]
        offset, size = self._ranges[2 * index : 2 * index + 2]
        return ImageRef(shard, offset=offset, size=size) if shard else None


def read_shards(pattern: str) -> ShardPairs:
    """Index a tar file, a folder of them, or a pattern such as `train/{00000..00099}.tar`.

    A sample is KEY.jpg (jpeg, png, webp) with KEY.txt or, without one, the `caption` of KEY.json. Its members
    are adjacent, as WebDataset requires. A text is one caption, with all of its lines.

    Raises:
        DataError: a shard is missing, compressed, cut short or damaged, or holds the same member twice.
    """
    pairs = ShardPairs(found for shard in expand(pattern) for found in _index(shard))
    if not pairs.samples:
        raise DataError(f"{pattern} contains no samples (KEY.jpg with KEY.txt); check the shards.")
    return pairs


def expand(pattern: str) -> Iterator[Path]:
    """Yield the shards of a pattern, or those of a folder, by name.

    They are yielded one at a time, so that a range that is far too long ends at the first missing shard.
    """
    folder = Path(pattern)
    if folder.is_dir():
        yield from sorted(folder.glob("[!.]*.tar"))
        return
    try:
        yield from map(Path, expand_braces(pattern))
    except PatternError as error:
        raise DataError(f"{pattern}: {error}") from error


def _index(shard: Path) -> list[tuple[Sample, ImageRef | None]]:
    """Return a shard's samples. Of their texts, only captions are kept, since a shard's JSON can be long."""
    samples: dict[str, _Members] = {}
    for member in read_members(shard, DataError):
        if member.extension in (*IMAGE_EXTENSIONS, "txt", "json"):
            _add(samples.setdefault(member.key, _Members(member.key, shard)), member)
    return [_sample(found) for found in samples.values()]


def _add(sample: _Members, member: Member) -> None:
    where = f"{sample.shard}, {member.name}"
    if member.extension in IMAGE_EXTENSIONS:
        if sample.image is not None:
            raise DataError(f"{where}: the key has two images in one shard; keep one.")
        sample.image = ImageRef(sample.shard, offset=member.offset, size=member.size)
        return
    if getattr(sample, member.extension) is not None:
        raise DataError(f"{where}: the key has two .{member.extension} members in one shard; keep one.")
    if member.size > MAX_TEXT_BYTES:
        raise DataError(f"{where} has {member.size} bytes; a caption may have at most {MAX_TEXT_BYTES}.")
    try:
        setattr(sample, member.extension, member.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not UTF-8 text; write the shard again with its texts in UTF-8."
        ) from error


def _sample(found: _Members) -> tuple[Sample, ImageRef | None]:
    captions = _captions(found)
    return Sample(f"{found.shard.name}/{found.key}", captions, ((),) * len(captions)), found.image


def _captions(sample: _Members) -> tuple[str, ...]:
    if sample.txt is not None:
        return (sample.txt.strip(),)
    if sample.json is None:
        return ()
    try:
        caption = json.loads(sample.json).get("caption", "")
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{sample.shard}, {sample.key}.json is not a JSON object; write the shard again."
        ) from error
    if caption is not None and not isinstance(caption, str):
        raise DataError(f"{sample.shard}, {sample.key}.json: `caption` must be a text, got {caption!r}.")
    return ((caption or "").strip(),)
