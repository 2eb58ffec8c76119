"""Labelled sets as tables: a column of images, and a column `label` of class numbers or of class names."""

from collections.abc import Sequence
from pathlib import Path

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.items import Item
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.tables import IMAGE_KEYS, class_names, find_column, read_rows

LABEL = "label"
_OPTION = "Rename the column, or give a folder for each class."


def read_class_table(files: Sequence[Path]) -> tuple[list[Item], tuple[str, ...] | None]:
    """Return a table's images with the numbers of their classes, and the classes' names.

    Numbered classes have the names that `datasets` wrote beside them, or None. Named ones are sorted, as folders are.

    Raises:
        EvaluationError or DataError: no such columns, or a row without an image or a class.
    """
    image_key = find_column(files[0], IMAGE_KEYS, _OPTION)
    find_column(files[0], (LABEL,), _OPTION)
    found: list[tuple[ImageRef, int | str]] = []
    for where, row in read_rows(files, image_key, LABEL):
        image, label = row.get(image_key), row.get(LABEL)
        if not isinstance(image, ImageRef):
            raise EvaluationError(f"{where}: `{image_key}` must hold the image itself, not its path.")
        if not isinstance(label, int | str) or label == "" or (isinstance(label, int) and label < 0):
            raise EvaluationError(
                f"{where}: `{LABEL}` is {label!r}, which is no class; is it a test set without labels?"
            )
        if found and isinstance(label, str) != isinstance(found[0][1], str):
            raise EvaluationError(
                f"{where}: `{LABEL}` is a text in some files and a number in others; convert one."
            )
        found.append((image, label))
    named = sorted({label for _, label in found if isinstance(label, str)})
    number = {name: place for place, name in enumerate(named)}
    items = [
        Item(image.row_name, (image,), target=number[label] if isinstance(label, str) else label)
        for image, label in found
    ]
    return items, tuple(named) or class_names(files[0], LABEL)
