"""SugarCrepe and SugarCrepe++: COCO images, true captions, and a fluent false one.

SugarCrepe is seven files over COCO val2017, {"0": {filename, caption, negative_caption}, ...}, whose keys
have gaps. SugarCrepe++ is lists of {id, filename, caption, caption2, negative_caption}; both captions are
true.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.errors import EvaluationError
from models.evaluation.annotations import image_folder, image_path, read_json, records, require_keys, text_of
from models.evaluation.caption_choice import CaptionChoice
from models.evaluation.items import Item
from models.evaluation.results import ImageRegion

FILES = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
LAYOUT = '{"0": {filename, caption, negative_caption}, ...}, as SugarCrepe has it'
LAYOUT_PP = "a list of {id, filename, caption, caption2, negative_caption}, as SugarCrepe++ has it"

_KEYS = ("filename", "caption", "negative_caption")
_KEYS_PP = ("id", "filename", "caption", "caption2", "negative_caption")


def sugarcrepe(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read one of the seven files, or those that a folder holds. Every file is a tag.

    Images are in `images`, or by default in `val2017/`, `images/` or next to the files.

    Raises:
        EvaluationError: no such files, or one is not laid out as SugarCrepe's.
    """
    files = _files(path, FILES, "SugarCrepe")
    folder = _image_folder(path, images)
    items = [item for file in files for item in _read(file, folder)]
    names = tuple(file.stem for file in files)
    missing = [name for name in FILES if name not in names]
    settings = {"files_missing": missing} if missing else {}
    return CaptionChoice("sugarcrepe", tuple(items), settings, macro_tags=names)


def sugarcrepe_pp(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read SugarCrepe++ files: one, or all `.json` of a folder.

    Both true captions must score above the false one.

    Raises: as `sugarcrepe`.
    """
    files = _files(path, None, "SugarCrepe++")
    folder = _image_folder(path, images)
    items = [item for file in files for item in _read_pp(file, folder)]
    tags = tuple(file.stem for file in files)
    return CaptionChoice("sugarcrepe-pp", tuple(items), {}, positives=2, macro_tags=tags)


def _files(path: Path, stems: tuple[str, ...] | None, name: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise EvaluationError(
            f"There is no file or folder {path}; give the folder that contains the files of {name}."
        )
    files = sorted(file for file in path.glob("*.json") if stems is None or file.stem in stems)
    if not files:
        wanted = ".json files" if stems is None else ", ".join(f"{stem}.json" for stem in stems)
        raise EvaluationError(
            f"{path} contains none of {wanted}; give the folder that contains the files of {name}."
        )
    return files


def _image_folder(path: Path, images: Path | None) -> Path:
    return image_folder(images, path if path.is_dir() else path.parent, "val2017", "images")


def _read(file: Path, folder: Path) -> list[Item]:
    content = read_json(file, LAYOUT)
    if not isinstance(content, dict) or not content:
        raise EvaluationError(f"{file} must be {LAYOUT}. Is it the file of another benchmark?")
    items = []
    for key, record in content.items():
        where = f"{file}, {key!r}"
        if not isinstance(record, dict):
            raise EvaluationError(f"{where} must be an object; the file must be {LAYOUT}.")
        require_keys(record, _KEYS, where, LAYOUT)
        items.append(
            _item(record, f"{file.stem}/{key}", ("caption", "negative_caption"), folder, file, where)
        )
    return items


def _read_pp(file: Path, folder: Path) -> list[Item]:
    items: dict[str, Item] = {}
    for number, record in enumerate(records(read_json(file, LAYOUT_PP), file, LAYOUT_PP)):
        where = f"{file}, [{number}]"
        require_keys(record, _KEYS_PP, where, LAYOUT_PP)
        if isinstance(record["id"], bool) or not isinstance(record["id"], int | str):
            raise EvaluationError(f"{where}: `id` must be a number or a text; its value is {record['id']!r}.")
        item_id = f"{file.stem}/{record['id']}"
        if item_id in items:
            raise EvaluationError(f"{where}: the id {record['id']!r} appears twice; ids must be unique.")
        keys = ("caption", "caption2", "negative_caption")
        items[item_id] = _item(record, item_id, keys, folder, file, where)
    return list(items.values())


def _item(
    record: dict[str, Any], item_id: str, captions: tuple[str, ...], folder: Path, file: Path, where: str
) -> Item:
    path = image_path(folder, text_of(record, "filename", where), where)
    return Item(
        id=item_id,
        images=(ImageRegion(path),),
        captions=tuple(text_of(record, key, where) for key in captions),
        tags=(file.stem,),
    )
