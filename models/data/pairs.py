"""Images with their captions, one sample per image, read one at a time."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import PIL.Image

from sds_clip.models.data.language import Language
from sds_clip.models.errors import DataError
from sds_clip.models.images.decode import ImageError, decode_image
from sds_clip.models.images.files import ImageFileError, NoImageFile
from sds_clip.models.images.ref import ImageRef


class Negative(str):
    """A hard negative caption that says how it was made. The data's own are plain strings, of no known kind."""

    __slots__ = ("kind",)

    kind: str
    """How it was made, such as `swap noun` or `replace colour`."""

    def __new__(cls, text: str, kind: str) -> "Negative":
        made = super().__new__(cls, text)
        made.kind = kind
        return made


def kind_of(negative: str) -> str:
    """How a negative was made, or an empty text if nobody knows."""
    return negative.kind if isinstance(negative, Negative) else ""


@dataclass(frozen=True, slots=True)
class Sample:
    """The captions of an image. `negatives[k]`, which may be empty, are hard negatives of `captions[k]`."""

    name: str
    captions: tuple[str, ...]
    negatives: tuple[tuple[str, ...], ...]
    line: int | None = field(default=None, compare=False)
    """The first one that names the image, in a file that gives the captions of many."""

    @property
    def place(self) -> str:
        """The sample in messages."""
        return self.name if self.line is None else f"{self.name} (line {self.line})"


class PairSet(ABC):
    """A sequence of samples. All methods may be called from several threads."""

    @property
    @abstractmethod
    def content_hash(self) -> str:
        """SHA-256 of everything that training sees: names, captions, negatives, images, in their order."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """Return the captions and negatives of one image, without its pixels."""

    @abstractmethod
    def image(self, index: int) -> PIL.Image.Image:
        """Return the image as RGB.

        Raises:
            DataError or ImageError: it cannot be read.
        """

    @cached_property
    def language(self) -> Language:
        """What is common in the captions. Reads them all."""
        samples = (self.sample(index) for index in range(len(self)))
        return Language(caption for sample in samples for caption in sample.captions)


class MissingImage(DataError):
    """A sample whose image does not exist."""


class UnreadableImage(DataError):
    """A sample whose image exists but cannot be read."""


class StoredPairs(PairSet):
    """Samples whose images are files, decoded as in evaluation (no EXIF, `convert("RGB")`)."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def content_hash(self) -> str:
        """Reads every file. `check_pairs` returns a set that has the hash already."""
        return combined_hash(
            sample_digest(self.samples[index], self.read(index)) for index in range(len(self))
        )

    def sample(self, index: int) -> Sample:
        return self.samples[index]

    @abstractmethod
    def ref(self, index: int) -> ImageRef | None:
        """Return where an image is, or None if its shard has only a text. Made anew, since a set may have millions."""

    def read(self, index: int) -> bytes:
        """Return the bytes of an image file.

        Raises MissingImage or UnreadableImage; a file that is too large is not read.
        """
        place, image = self.samples[index].place, self.ref(index)
        if image is None:
            raise MissingImage(f"{place}: the shard has a text for this key but no image.")
        try:
            return image.read()
        except ImageFileError as error:
            kind = MissingImage if isinstance(error, NoImageFile) else UnreadableImage
            what = image.path if image.column is None else "the image"
            raise kind(f"{place}: {what} {error}.") from error

    def image(self, index: int) -> PIL.Image.Image:
        """Return the image as RGB. Raises MissingImage or UnreadableImage, naming the sample."""
        return self.decode(index, self.read(index))

    def decode(self, index: int, data: bytes) -> PIL.Image.Image:
        """Decode the bytes of image `index`. Raises UnreadableImage."""
        try:
            return decode_image(data, orient=False)
        except ImageError as error:
            raise UnreadableImage(f"{self.samples[index].place}: {error}") from error


class FilePairs(StoredPairs):
    """Samples whose images are separate files, with names relative to a folder."""

    def __init__(self, samples: Sequence[Sample], folder: Path) -> None:
        super().__init__(samples)
        self.folder = folder

    @classmethod
    def by_image(cls, rows: Iterable[Sample], folder: Path) -> "FilePairs":
        """Make one sample of the rows of each image, in the order of its first row."""
        captions: dict[str, list[str]] = {}
        negatives: dict[str, list[tuple[str, ...]]] = {}
        lines: dict[str, int | None] = {}
        for row in rows:
            lines.setdefault(row.name, row.line)
            captions.setdefault(row.name, []).extend(row.captions)
            negatives.setdefault(row.name, []).extend(row.negatives)
        samples = [
            Sample(name, tuple(texts), tuple(negatives[name]), lines[name])
            for name, texts in captions.items()
        ]
        return cls(samples, folder)

    def ref(self, index: int) -> ImageRef:
        return ImageRef(self.folder / self.samples[index].name)


class Subset(PairSet):
    """Selected samples of another set, in the order of `indices`."""

    def __init__(self, pairs: PairSet, indices: Sequence[int], content_hash: str | None = None) -> None:
        self._pairs = pairs
        self._indices = indices
        self._content_hash = content_hash

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def content_hash(self) -> str:
        """The given hash, or one of the whole set's hash and the indices."""
        if self._content_hash is None:
            chosen = json.dumps([int(index) for index in self._indices])
            self._content_hash = hashlib.sha256(f"{self._pairs.content_hash} {chosen}".encode()).hexdigest()
        return self._content_hash

    def sample(self, index: int) -> Sample:
        return self._pairs.sample(self._indices[index])

    def image(self, index: int) -> PIL.Image.Image:
        return self._pairs.image(self._indices[index])


def sample_digest(sample: Sample, data: bytes) -> bytes:
    """SHA-256 of a sample's texts and its image file's content."""
    text = json.dumps([sample.name, sample.captions, sample.negatives]).encode()
    return hashlib.sha256(hashlib.sha256(text).digest() + hashlib.sha256(data).digest()).digest()


def combined_hash(digests: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for digest in digests:
        total.update(digest)
    return total.hexdigest()
