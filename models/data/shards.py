"""WebDataset shards, indexed once so that any sample can be read at its place: resuming is then exact."""

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.data.errors import DataError
from models.data.pairs import MissingImage, Sample, StoredPairs, UnreadableImage, check_size

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MAX_TEXT_BYTES = 2**20
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image's bytes lie within a shard that is not compressed."""

    shard: Path
    offset: int
    size: int


@dataclass
class _Members:
    key: str
    shard: Path
    image: Place | None = None
    txt: str | None = None
    json: str | None = None


class ShardPairs(StoredPairs):
    """Samples whose images are members of tar files."""

    def __init__(self, samples: Sequence[Sample], places: Sequence[Place | None]) -> None:
        super().__init__(samples)
        self._places = places

    def read(self, index: int) -> bytes:
        """The member's bytes, from one seek into its shard."""
        place, name = self._places[index], self.samples[index].name
        if place is None:
            raise MissingImage(f"{name}: the shard has no image beside its text.")
        check_size(name, place.size)
        try:
            with place.shard.open("rb") as file:
                file.seek(place.offset)
                data = file.read(place.size)
        except OSError as error:
            raise UnreadableImage(f"{name}: {place.shard} cannot be read ({error.strerror}).") from error
        if len(data) < place.size:
            raise UnreadableImage(f"{name}: {place.shard} ends within the image.")
        return data


def read_shards(pattern: str) -> ShardPairs:
    """Index a tar file, a folder of them, or a pattern such as `train/{00000..00099}.tar`.

    A sample is KEY.jpg (jpeg, png, webp) with KEY.txt or, where there is none, KEY.json's `caption`, next to
    each other as WebDataset wants; every line of a text belongs to one caption.

    Raises:
        DataError: a shard is missing, compressed, cut short or damaged, or holds the same member twice.
    """
    indexed = [found for shard in expand(pattern) for found in _index(shard)]
    if not indexed:
        raise DataError(f"{pattern}: holds no samples (KEY.jpg with KEY.txt); check the shards.")
    return ShardPairs([sample for sample, _ in indexed], [place for _, place in indexed])


def expand(pattern: str) -> Iterator[Path]:
    """Shards of a pattern with `{first..last}` (zeros kept) and `{a,b}`, or those of a folder, by name.

    One at a time, so that a range that is far too long ends at the first shard that is not there.
    """
    folder = Path(pattern)
    if folder.is_dir():
        yield from sorted(folder.glob("[!.]*.tar"))
    else:
        yield from map(Path, _expand(pattern))


def _expand(pattern: str) -> Iterator[str]:
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    choices: Iterable[str] = braces[1].split(",")
    numbers = _RANGE.fullmatch(braces[1])
    if numbers:
        first, last = numbers.groups()
        if int(last) < int(first):
            raise DataError(f"{pattern}: the range {{{braces[1]}}} is empty; write the smaller number first.")
        choices = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    for choice in choices:
        yield from _expand(head + choice + tail)


def _index(shard: Path) -> list[tuple[Sample, Place | None]]:
    """A shard's samples; of their texts only the captions are kept, since a shard's JSON can be long."""
    samples: dict[str, _Members] = {}
    try:
        # "r:" reads plain tar files alone: into a compressed one nothing can seek.
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                key, extension = _split(member.name)
                if not member.isreg() or not key or extension not in (*IMAGE_EXTENSIONS, "txt", "json"):
                    continue
                sample = samples.setdefault(key, _Members(key, shard))
                _add(sample, extension, member, archive)
            _check_end(archive)
    except FileNotFoundError as error:
        raise DataError(f"{shard}: there is no such shard; check the path and the range.") from error
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror}); check the file.") from error
    except tarfile.TarError as error:
        raise DataError(
            f"{shard}: is not a whole, uncompressed tar file; unpack it if it is compressed, or fetch it again."
        ) from error
    return [_sample(found) for found in samples.values()]


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError unless zeros end the archive: tarfile takes a damaged or missing header for the end."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end of the archive")


def _split(name: str) -> tuple[str, str]:
    """WebDataset's key and extension: all up to the first dot of the file's own name, and what follows it."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return (folder + slash + stem if stem else ""), extension.lower()


def _add(sample: _Members, extension: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    where = f"{sample.shard}, {member.name}"
    if extension in IMAGE_EXTENSIONS:
        if sample.image is not None:
            raise DataError(f"{where}: the key has two images in one shard; keep one.")
        sample.image = Place(sample.shard, member.offset_data, member.size)
        return
    if getattr(sample, extension) is not None:
        raise DataError(f"{where}: the key has two .{extension} members in one shard; keep one.")
    if member.size > MAX_TEXT_BYTES:
        raise DataError(f"{where}: has {member.size} bytes; a caption has at most {MAX_TEXT_BYTES}.")
    content = archive.extractfile(member)
    if content is None:
        return
    try:
        setattr(sample, extension, content.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is not UTF-8 text; write the shard again as UTF-8.") from error


def _sample(found: _Members) -> tuple[Sample, Place | None]:
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
            f"{sample.shard}, {sample.key}.json: is not a JSON object; write the shard again."
        ) from error
    if caption is not None and not isinstance(caption, str):
        raise DataError(f"{sample.shard}, {sample.key}.json: `caption` must be a text, got {caption!r}.")
    return ((caption or "").strip(),)
