"""ColorSwap: two images and two captions in which the colours are swapped (Burapacheep et al. 2024, arXiv 2402.04492).

A set is a folder with `test.json`, a list, and `images/`:

    {"id": 0, "caption_1": "...", "caption_2": "...", "image_1": "images/img_0_1.png", "image_2": "images/img_0_2.png",
     "image_source": "midjourney", "caption_source": "human"}

This is the authors' download, as the README of github.com/Top34051/colorswap describes it; `train.json` has the same
form. The hub (stanfordnlp/colorswap) has the same records as Parquet, with the images inside. Images are made by
diffusion models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.errors import EvaluationError
from models.evaluation.annotations import (
    by_id,
    image_folder,
    image_of,
    read_records,
    read_table,
    text_of,
)
from models.evaluation.items import Item
from models.evaluation.winoground import Winoground
from models.tables import table_files

FILE = "test.json"
LAYOUT = "a list of {id, caption_1, caption_2, image_1, image_2}, as ColorSwap has it"

_CAPTIONS, _IMAGES = ("caption_1", "caption_2"), ("image_1", "image_2")
_SOURCES = ("image_source", "caption_source")


def colorswap(path: Path, images: Path | None = None) -> Winoground:
    """Read the test set from its folder, one file of it, or a table.

    Images that are files are named from `images`, or from the file's folder.

    Raises:
        EvaluationError or DataError: no such file, or another layout.
    """
    file = path / FILE if path.is_dir() else path
    tables = [] if file.is_file() and file != path else table_files(path)
    if not tables and not file.is_file():
        raise EvaluationError(
            f"There is no file {file}; give ColorSwap's {FILE} or its folder, or its Parquet file of the hub."
        )
    keys = ("id", *_CAPTIONS, *_IMAGES)
    rows = read_table(tables, keys, _SOURCES, LAYOUT) if tables else read_records(file, keys, LAYOUT)
    records = by_id(rows, file)
    folder = image_folder(images, tables[0].parent if tables else file.parent)
    items = tuple(
        Item(
            id=item_id,
            images=tuple(image_of(record, key, where, folder) for key in _IMAGES),
            captions=tuple(text_of(record, key, where) for key in _CAPTIONS),
            tags=_tags(record, where),
        )
        for item_id, (where, record) in records.items()
    )
    return Winoground("colorswap", items, {})


def _tags(record: dict[str, Any], where: str) -> tuple[str, ...]:
    stated = [key for key in _SOURCES if record.get(key) not in (None, "")]
    return tuple(f"{key.removesuffix('_source')}: {text_of(record, key, where)}" for key in stated)
