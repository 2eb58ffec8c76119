"""Files of images with several captions: COCO's, or a list of {image, caption: [...]} (Karpathy's splits)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.data.coco import read_coco
from models.errors import EvaluationError
from models.evaluation.annotations import image_folder, image_path, read_json, records, require_keys, text_of

LAYOUT = "a list of {image, caption: [...]}, or COCO's {images: [{id, file_name}], annotations: [{image_id, caption}]}"


@dataclass(frozen=True)
class CaptionedImage:
    """An image file and its captions. `name` is unique in its file."""

    name: str
    path: Path
    captions: tuple[str, ...]


def read_captions(file: Path, images: Path | None = None) -> list[CaptionedImage]:
    """Read every image with its captions, in the file's order.

    Images are in `images`, or by default in `images/` or next to the file.

    Raises:
        EvaluationError or DataError: no such file, another layout, an image that is named twice, or an empty
            caption.
    """
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise EvaluationError(f"{file} {what}; give a captions file: {LAYOUT}.")
    folder = image_folder(images, file.parent, "images")
    content = read_json(file, LAYOUT)
    found = _of_list(content, file, folder) if isinstance(content, list) else _of_coco(content, file, folder)
    seen: set[str] = set()
    for image in found:
        if image.name in seen:
            raise EvaluationError(
                f"{file}: the image {image.name!r} appears twice; put all of its captions in one entry."
            )
        seen.add(image.name)
    return found


def _of_coco(content: Any, file: Path, folder: Path) -> list[CaptionedImage]:
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise EvaluationError(f"{file} must be {LAYOUT}. Is it the file of another benchmark?")
    pairs = read_coco(file, folder)
    found = []
    for sample, path in zip(pairs.samples, pairs.files, strict=True):
        where = f"{file}, {sample.name}"
        captions = tuple(text_of({"caption": caption}, "caption", where) for caption in sample.captions)
        found.append(CaptionedImage(sample.name, path, captions))
    without = len(content["images"]) - len(found)
    if without:
        raise EvaluationError(
            f"{file}: {without} of {len(content['images'])} images have no caption. Leaving them out "
            "would make the other images easier to find. Add captions for them, or remove them from "
            "`images`."
        )
    return found


def _of_list(content: Any, file: Path, folder: Path) -> list[CaptionedImage]:
    found = []
    for number, record in enumerate(records(content, file, LAYOUT)):
        where = f"{file}, [{number}]"
        require_keys(record, ("image", "caption"), where, LAYOUT)
        name = text_of(record, "image", where)
        captions = [record["caption"]] if isinstance(record["caption"], str) else record["caption"]
        if not isinstance(captions, list) or not captions:
            raise EvaluationError(f"{where}: `caption` must be a list of texts; its value is {captions!r}.")
        texts = tuple(text_of({"caption": caption}, "caption", where) for caption in captions)
        found.append(CaptionedImage(name, image_path(folder, name, where), texts))
    return found
