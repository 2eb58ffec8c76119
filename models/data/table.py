"""Tables of images and captions as open_clip reads them, with NegCLIP's hard negative captions."""

import ast
import csv
from collections.abc import Iterator
from pathlib import Path

from sds_clip.models.data.pairs import FilePairs, Sample
from sds_clip.models.errors import DataError
from sds_clip.models.files import not_utf_8

NEGATIVES_KEY = "neg_caption"
"""NegCLIP's column, a Python list of texts. NegCLIP's `neg_image` is not used."""


def read_table(
    path: Path,
    images: Path | None = None,
    *,
    image_key: str = "filepath",
    caption_key: str = "title",
    separator: str | None = None,
) -> FilePairs:
    """Read one sample per image, with the captions of its rows in order. Images are relative to `images`.

    Raises:
        DataError: no such file or column, a row that does not fit the header, or negatives that are no list.
    """
    pairs = FilePairs.by_image(
        _samples(path, image_key, caption_key, separator), path.parent if images is None else images
    )
    if not pairs.samples:
        raise DataError(f"{path} has a header but no rows; add data.")
    return pairs


def negatives_in(cell: str, where: str) -> tuple[str, ...]:
    """Return the texts of a cell of NegCLIP's column. Raises DataError unless it is empty or a Python list of texts."""
    if not cell:
        return ()
    try:
        texts = ast.literal_eval(cell)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        texts = None
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: `{NEGATIVES_KEY}` must be a Python list of texts: ['a', 'b'].")
    return tuple(text.strip() for text in texts if text.strip())


def _samples(path: Path, image_key: str, caption_key: str, separator: str | None) -> Iterator[Sample]:
    for line, row in table_rows(path, separator, (image_key,), (caption_key,)):
        name = row[image_key].strip()
        if not name:
            raise DataError(
                f"{path}, line {line}: the row names no image; fill in `{image_key}` or remove the row."
            )
        negatives = negatives_in(row.get(NEGATIVES_KEY, "").strip(), f"{path}, line {line}")
        yield Sample(name, (row[caption_key].strip(),), (negatives,), line)


def table_rows(
    path: Path, separator: str | None, *wanted: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line that each row ends on, and its cells by column name.

    Raises:
        DataError: no such file, none of some `wanted` names is a column, or a row that does not fit the header.
    """
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = "\t" if separator == r"\t" else separator  # how a tab arrives from a shell
            reader = csv.reader(file, delimiter=delimiter or _separator(path, header), strict=True)
            columns = next(reader, [])
            for keys in wanted:
                if not set(keys) & set(columns):
                    raise DataError(
                        f"{path}, line 1: there is no column {' or '.join(map(repr, keys))}; the columns are "
                        f"{', '.join(columns) or 'missing'}. Name the right columns with image_key and caption_key, "
                        "and check the separator."
                    )
            for row in filter(None, reader):
                line = reader.line_num
                if len(row) < len(columns):
                    raise DataError(
                        f"{path}, line {line}: the row has fewer cells than the header; complete the row."
                    )
                if len(row) > len(columns):
                    raise DataError(
                        f"{path}, line {line}: the row has more cells than the header; put quotes around texts "
                        "that contain the separator."
                    )
                yield line, dict(zip(columns, row, strict=True))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); check the path and its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise not_utf_8(path, DataError) from error
    except TypeError as error:
        raise DataError(f"{path}: the separator must be one character, not {separator!r}.") from error
    except csv.Error as error:
        raise DataError(
            f"{path}: the row after line {line} cannot be read ({error}); check its quotes and the separator."
        ) from error


def _separator(path: Path, header: str) -> str:
    """Return a tab, open_clip's default, unless a `.csv` has no tab in its header."""
    return "," if path.suffix.lower() == ".csv" and "\t" not in header else "\t"
