"""COCO captions: a folder and a file {images: [{id, file_name}], annotations: [{image_id, caption}]}."""

import os
from pathlib import Path
from typing import Any

from sds_clip.models.data.pairs import FilePairs, Sample
from sds_clip.models.errors import DataError
from sds_clip.models.files import read_object


def read_coco(path: Path, images: Path | None = None) -> FilePairs:
    """Read one sample per image that has annotations, in the order of `images`.

    A sample's captions are in the order of `annotations`. Images without annotations are left out, since a
    file of chosen captions often lists every image.

    Raises:
        DataError: too large, not COCO's layout, a repeated image id, a caption of an unlisted image, or an
            image outside the folder.
    """
    folder = path.parent if images is None else images
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; give the folder that contains the images.")
    content = read_object(path, DataError, "give a COCO captions file")
    name_of: dict[Any, str] = {}
    for number, record in enumerate(_records(content, "images", path)):
        where = f"{path}, images[{number}]"
        image_id = _field(record, "id", where, int | str)
        if image_id in name_of:
            raise DataError(f"{where}: the id {image_id!r} appears twice; ids must be unique.")
        name = _field(record, "file_name", where, str)
        # Only the name is checked: links within the folder may lead to another disk.
        if not os.path.abspath(folder / name).startswith(os.path.join(os.path.abspath(folder), "")):
            raise DataError(
                f"{where}: file_name {name!r} is not inside the image folder {folder}; correct the file."
            )
        name_of[image_id] = name
    captions: dict[Any, list[str]] = {}
    for number, record in enumerate(_records(content, "annotations", path)):
        where = f"{path}, annotations[{number}]"
        image_id = _field(record, "image_id", where, int | str)
        if image_id not in name_of:
            raise DataError(
                f"{where}: image_id {image_id!r} is not among `images`; add the image or remove the caption."
            )
        captions.setdefault(image_id, []).append(_field(record, "caption", where, str).strip())
    samples = [
        Sample(name, tuple(captions[image_id]), ((),) * len(captions[image_id]))
        for image_id, name in name_of.items()
        if image_id in captions
    ]
    if not samples:
        raise DataError(f"{path} contains no captions; give a COCO captions file (captions_train2017.json).")
    return FilePairs(samples, folder)


def _records(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    records = content.get(key)
    if not isinstance(records, list):
        raise DataError(f"{path} must have a list `{key}`, as COCO captions files do.")
    return records


def _field(record: Any, key: str, where: str, kind: Any) -> Any:
    value = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, kind):
        raise DataError(
            f"{where}: `{key}` is missing or has the wrong type (its value is {value!r}); correct the file."
        )
    return value
