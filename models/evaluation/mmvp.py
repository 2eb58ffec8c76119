"""MMVP-VLM: pairs of images that CLIP takes for alike, in nine visual patterns (Tong et al. 2024, arXiv 2401.06209).

A set is `Questions.csv`, two rows for a pair, and a folder of images for each pattern, as on the hub (MMVP/MMVP_VLM):

    Question ID,Type,Statement
    1,Orientation,...                    MLLM_VLM Images/Orientation/1.jpg
    2,Orientation,...                    MLLM_VLM Images/Orientation/2.jpg

The authors' scripts/evaluate_vlm.py (github.com/tsb0601/MMVP) puts "a photo of " before each statement. A pair is right
if each statement scores higher with its own image than with the other, which is Winoground's image score. The
published average is over the patterns, which all have 15 pairs.
"""

import csv
import io
from pathlib import Path

from sds_clip.models.errors import EvaluationError, quoted
from sds_clip.models.evaluation.annotations import Record, image_folder, image_path, the_file
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.winoground import Winoground
from sds_clip.models.files import read_text
from sds_clip.models.images.ref import ImageRef

FILE = "Questions.csv"
IMAGES = ("MLLM_VLM Images", "MMVP_VLM_Images")
"""The folder of images on the hub, and in the authors' README."""

PREFIX = "a photo of "

_MAX_DIGITS = 9

_COLUMNS = ["Question ID", "Type", "Statement"]


def mmvp_vlm(path: Path, images: Path | None = None) -> Winoground:
    """Read the pairs. Every pattern is a tag. `path` is `Questions.csv` or its folder.

    The folders of the patterns are in `images`, or by default in `MLLM_VLM Images/` next to the file.

    Raises:
        EvaluationError: no such file, another layout, or rows that are not in pairs.
    """
    file = the_file(path, FILE, f"MMVP-VLM's {FILE} or its folder")
    rows = _rows(file)
    folder = image_folder(images, file.parent, *IMAGES)
    pairs = [_pair(*two, folder) for two in zip(rows[::2], rows[1::2], strict=True)]
    return Winoground("mmvp-vlm", tuple(pairs), {}, primary="image_score")


def _rows(file: Path) -> list[Record]:
    header, *lines = _lines(file) or [("", [])]
    if header[1] != _COLUMNS:
        found = quoted(", ".join(header[1])) if header[1] else "an empty line"
        raise EvaluationError(
            f"{file} must begin with the columns {', '.join(_COLUMNS)}, as MMVP-VLM has it, but begins with {found}. "
            f"Give the {FILE} of MMVP_VLM, not that of MMVP."
        )
    rows: dict[str, Record] = {}
    for where, values in lines:
        if not values:
            continue
        if len(values) != len(_COLUMNS):
            raise EvaluationError(
                f"{where}: the row has {len(values)} fields; it must have {', '.join(_COLUMNS)}."
            )
        number = values[0]
        if not number.isdecimal() or len(number) > _MAX_DIGITS:
            raise EvaluationError(
                f"{where}: the Question ID must be a number of at most {_MAX_DIGITS} digits; its value is "
                f"{quoted(number)}."
            )
        if number in rows:
            raise EvaluationError(f"{where}: the Question ID {number} appears twice; ids must be unique.")
        rows[number] = Record(where, dict(zip(_COLUMNS, values, strict=True)))
    if not rows or len(rows) % 2:
        raise EvaluationError(
            f"{file} has {len(rows)} rows, which are not pairs; every two rows must be a pair. Download it again."
        )
    return list(rows.values())


def _lines(file: Path) -> list[tuple[str, list[str]]]:
    """Return the fields of each line, with where it stands in words for messages. Raises EvaluationError."""
    reader = csv.reader(io.StringIO(read_text(file, EvaluationError), newline=""), strict=True)
    try:
        return [(f"{file}, line {reader.line_num}", values) for values in reader]
    except csv.Error as error:
        raise EvaluationError(
            f"{file}, line {reader.line_num}: {error}. Is a quotation mark not closed? Download the file again."
        ) from error


def _pair(first: Record, second: Record, folder: Path) -> Item:
    pattern, other = second.text("Type"), first.values["Type"]
    if pattern != other:
        raise EvaluationError(
            f"{second.where}: the Type is {quoted(pattern)}, but that of the row before is {quoted(other)}; every two "
            "rows must be a pair of one type."
        )
    numbers = [row.values["Question ID"] for row in (first, second)]
    one, next_one = map(int, numbers)
    if one % 2 == 0 or next_one != one + 1:
        raise EvaluationError(
            f"{second.where}: the Question IDs {one} and {next_one} are no pair; a pair is an odd number and the next "
            "one. Download the file again."
        )
    names = [f"{pattern}/{number}.jpg" for number in numbers]
    return Item(
        id="-".join(numbers),
        images=tuple(ImageRef(image_path(folder, name, second.where)) for name in names),
        captions=tuple(PREFIX + row.text("Statement") for row in (first, second)),
        tags=(pattern,),
    )
