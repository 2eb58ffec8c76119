"""Images with several captions, for retrieval.

They are COCO's file, a list of {image, caption: [...]} (Karpathy's splits), or pairs in a layout of Hugging Face.
"""

import hashlib
from pathlib import Path
from typing import Any

from sds_clip.models.data.coco import read_coco
from sds_clip.models.data.metadata import METADATA, metadata_file
from sds_clip.models.data.open import open_pairs
from sds_clip.models.data.pairs import StoredPairs
from sds_clip.models.errors import EvaluationError, quoted
from sds_clip.models.evaluation.annotations import image_folder, other_layout, read_json, records, texts_of
from sds_clip.models.evaluation.items import Item
from sds_clip.models.images.files import ImageFileError
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.tables import table_files

LAYOUT = "a list of {image, caption: [...]}, or COCO's {images: [{id, file_name}], annotations: [{image_id, caption}]}"


def read_captions(file: Path, images: Path | None = None) -> list[Item]:
    """Read every image with its captions, in the file's order. An item's id is unique in its file.

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
    for item in found:
        if item.id in seen:
            raise EvaluationError(
                f"{file}: the image {item.id!r} appears twice; put all of its captions in one entry."
            )
        seen.add(item.id)
    return found


def is_pairs(path: Path) -> bool:
    """Return whether `path` is a `metadata.jsonl` or `metadata.csv`, the folder of one, or a table."""
    is_metadata = path.name in METADATA or path.suffix.lower() == ".jsonl"
    return is_metadata or metadata_file(path) is not None or bool(table_files(path))


def read_pairs(path: Path, images: Path | None = None) -> list[Item]:
    """Read every image with its captions as training does. Names must not lead out of the folder of images.

    Raises:
        EvaluationError or DataError: another layout, an empty caption, or two rows with one image.
    """
    return _items(open_pairs(path, images=images, confined=True), path)


def _items(pairs: StoredPairs, path: Path) -> list[Item]:
    found: list[Item] = []
    rows: dict[bytes, str] = {}
    for index, sample in enumerate(pairs.samples):
        where = f"{path}, {sample.name}"
        captions = texts_of(sample.captions, "caption", where)
        if not captions:
            raise EvaluationError(f"{where}: the image has no caption; add one, or remove the row.")
        image = pairs.ref(index)
        assert image is not None  # only a key of a shard has none
        if not image.is_file:
            _check_once(image, rows)
        found.append(Item(sample.name, (image,), captions))
    return found


def _check_once(cell: ImageRef, rows: dict[bytes, str]) -> None:
    """Refuse an image that another row holds too: each of the two would be a wrong answer for the other's captions."""
    try:
        digest = hashlib.sha256(cell.read()).digest()
    except ImageFileError:
        return  # the check of all images says so
    if rows.setdefault(digest, cell.row_name) != cell.row_name:
        raise EvaluationError(
            f"{cell.path}: the rows {rows[digest]} and {cell.row_name} hold the same image. Put all of its captions "
            "into one row, as a list."
        )


def _of_coco(content: Any, file: Path, folder: Path) -> list[Item]:
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise other_layout(file, LAYOUT)
    found = _items(read_coco(file, folder), file)
    without = len(content["images"]) - len(found)
    if without:
        raise EvaluationError(
            f"{file}: {without} of {len(content['images'])} images have no caption. Leaving them out "
            "would make the other images easier to find. Add captions for them, or remove them from "
            "`images`."
        )
    return found


def _of_list(content: Any, file: Path, folder: Path) -> list[Item]:
    found = []
    for record in records(content, file, LAYOUT):
        record.require(("image", "caption"), LAYOUT)
        name, captions = record.text("image"), record.values["caption"]
        if isinstance(captions, str):
            captions = [captions]
        if not isinstance(captions, list) or not captions:
            raise EvaluationError(
                f"{record.where}: `caption` must be a list of texts; its value is {quoted(captions)}."
            )
        texts = texts_of(captions, "caption", record.where)
        found.append(Item(name, (record.image("image", folder),), texts))
    return found
