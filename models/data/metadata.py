"""Folders of images with a `metadata.jsonl`, as Hugging Face's ImageFolder: {"file_name", "text"} for each image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.data.pairs import FilePairs, Sample
from models.data.table import NEGATIVES_KEY, negatives_in
from models.errors import DataError
from models.files import read_lines
from models.tables import IMAGE_KEYS

METADATA = "metadata.jsonl"
CAPTION_KEYS = ("text", "caption", "captions", "title")
"""The fields or columns of captions that are looked for if none is named."""
_LAYOUT = 'an object such as {"file_name": "a.jpg", "text": "a dog"}'


def read_metadata(
    path: Path,
    images: Path | None = None,
    *,
    image_keys: tuple[str, ...] = IMAGE_KEYS,
    caption_keys: tuple[str, ...] = CAPTION_KEYS,
) -> FilePairs:
    """Read one sample per image, with the captions of its lines in order. Images are relative to `images`.

    `path` is the folder or its file. Of the keys, the first that a line has is read.

    Raises:
        DataError: no such file, or a line that names no image or whose captions are not texts.
    """
    file = path / METADATA if path.is_dir() else path
    pairs = FilePairs.by_image(
        _samples(file, image_keys, caption_keys), file.parent if images is None else images
    )
    if not pairs.samples:
        raise DataError(f"{file} has no lines; add data.")
    return pairs


def _samples(file: Path, image_keys: tuple[str, ...], caption_keys: tuple[str, ...]) -> Iterator[Sample]:
    for where, line in read_lines(file, DataError, _LAYOUT):
        name = first_of(line, image_keys)
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}: the line names no image; it must be {_LAYOUT}.")
        yield sample_of(name.strip(), first_of(line, caption_keys), line.get(NEGATIVES_KEY), where)


def first_of(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """Return the value of the first key that a row has, or None."""
    return next((row[key] for key in keys if key in row), None)


def sample_of(name: str, captions: Any, negatives: Any, where: str) -> Sample:
    """Make a sample of a row: its captions, a text or a list of texts, and the hard negatives of a single caption.

    Raises:
        DataError: they are something else.
    """
    texts = _texts(captions, "the captions", where)
    wrong = (
        negatives_in(negatives.strip(), where)
        if isinstance(negatives, str)
        else _texts(negatives, NEGATIVES_KEY, where)
    )
    if wrong and len(texts) != 1:
        raise DataError(f"{where}: hard negatives belong to one caption; give each caption a row of its own.")
    return Sample(name, texts, (wrong,) if len(texts) == 1 else ((),) * len(texts))


def _texts(value: Any, what: str, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise DataError(
            f"{where}: {what} must be a text or a list of texts; the value is {str(value)[:100]!r}."
        )
    return tuple(text.strip() for text in values)
