"""ColorSwap: two images and two captions in which the colours are swapped (Burapacheep et al. 2024, arXiv 2402.04492).

A set is a folder with `test.json`, a list, and `images/`:

    {"id": 0, "caption_1": "...", "caption_2": "...", "image_1": "images/img_0_1.png", "image_2": "images/img_0_2.png",
     "image_source": "midjourney", "caption_source": "human"}

This is the authors' download, as the README of github.com/Top34051/colorswap describes it; `train.json` has the same
form. The hub (stanfordnlp/colorswap) has the same records as Parquet. Images are made by diffusion models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.errors import EvaluationError
from models.evaluation.annotations import (
    by_id,
    image_folder,
    image_path,
    read_records,
    refuse_parquet,
    text_of,
)
from models.evaluation.items import Item
from models.evaluation.results import ImageRegion
from models.evaluation.winoground import Winoground

FILE = "test.json"
LAYOUT = "a list of {id, caption_1, caption_2, image_1, image_2}, as ColorSwap has it"

_CAPTIONS, _IMAGES = ("caption_1", "caption_2"), ("image_1", "image_2")


def colorswap(path: Path, images: Path | None = None) -> Winoground:
    """Read the test set from its folder, or one file of it. Images are named from `images`, or from the file's folder.

    Raises:
        EvaluationError: no such file, or another layout.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        refuse_parquet(path)
        raise EvaluationError(f"There is no file {file}; give ColorSwap's {FILE} or its folder.")
    refuse_parquet(file)
    records = by_id(read_records(file, ("id", *_CAPTIONS, *_IMAGES), LAYOUT), file)
    folder = image_folder(images, file.parent)
    items = tuple(
        Item(
            id=item_id,
            images=tuple(
                ImageRegion(image_path(folder, text_of(record, key, where), where)) for key in _IMAGES
            ),
            captions=tuple(text_of(record, key, where) for key in _CAPTIONS),
            tags=_tags(record),
        )
        for item_id, (where, record) in records.items()
    )
    return Winoground("colorswap", items, {})


def _tags(record: dict[str, Any]) -> tuple[str, ...]:
    sources = {"image": record.get("image_source"), "caption": record.get("caption_source")}
    return tuple(f"{what}: {source}" for what, source in sources.items() if source)
