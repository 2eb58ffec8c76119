"""Folders of images with a `metadata.jsonl` or `metadata.csv`, as Hugging Face's ImageFolder.

Each line or row is `file_name` and `text` of an image.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sds_clip.models.data.pairs import FilePairs, Sample
from sds_clip.models.data.table import NEGATIVES_KEY, negatives_in, table_rows
from sds_clip.models.errors import DataError
from sds_clip.models.files import numbered_lines
from sds_clip.models.images.tables import IMAGE_KEYS

METADATA = ("metadata.jsonl", "metadata.csv")
CAPTION_KEYS = ("text", "caption", "captions", "title")
"""The fields or columns of captions that are looked for if none is named."""
_LAYOUT = 'an object such as {"file_name": "a.jpg", "text": "a dog"}'


def read_metadata(
    path: Path,
    images: Path | None = None,
    *,
    image_keys: tuple[str, ...] = IMAGE_KEYS,
    caption_keys: tuple[str, ...] = CAPTION_KEYS,
    separator: str | None = None,
) -> FilePairs:
    """Read one sample per image, with the captions of its lines in order. Images are relative to `images`.

    `path` is the folder or its file. Of the keys, the first that a line has is read. `separator` is that of a `.csv`.

    Raises:
        DataError: no such file, two of them, or a line that names no image, whose captions are not texts, or which
            repeats another line of a `.csv`.
    """
    file = (metadata_file(path) or path / METADATA[0]) if path.is_dir() else path
    pairs = FilePairs.by_image(
        _samples(file, image_keys, caption_keys, separator), file.parent if images is None else images
    )
    if not pairs.samples:
        raise DataError(f"{file} has no lines; add data.")
    return pairs


def metadata_file(folder: Path) -> Path | None:
    """Return the file that gives the captions of a folder's images. Raises DataError if there are two."""
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} holds {' and '.join(METADATA)}; keep the one that has the captions.")
    return found[0] if found else None


def _samples(
    file: Path, image_keys: tuple[str, ...], caption_keys: tuple[str, ...], separator: str | None
) -> Iterator[Sample]:
    is_csv = file.suffix.lower() == ".csv"
    lines: Iterator[tuple[int, dict[str, Any]]] = (
        table_rows(file, separator, image_keys, caption_keys)
        if is_csv
        else numbered_lines(file, DataError, _LAYOUT)
    )
    seen: dict[Sample, int] = {}
    for number, line in lines:
        where = f"{file}, line {number}"
        name = first_of(line, image_keys)
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}: the line names no image; fill in its file name.")
        sample = sample_of(name.strip(), first_of(line, caption_keys), line.get(NEGATIVES_KEY), where)
        if is_csv and (earlier := seen.setdefault(sample, number)) != number:
            raise DataError(f"{where}: the row repeats line {earlier}; remove one of them.")
        yield replace(sample, line=number)


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
