"""ARO's VG-Relation and VG-Attribution: a box of an image, a true caption and a false one (arXiv 2210.01936).

A file is a list of {image_path, bbox_x, bbox_y, bbox_w, bbox_h, true_caption, false_caption} with a
`relation_name` or with two `attributes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.errors import EvaluationError, quoted
from models.evaluation.annotations import image_path, read_json, records, require_keys, text_of
from models.evaluation.caption_choice import CaptionChoice
from models.evaluation.items import Item
from models.evaluation.results import ImageRegion

MIN_PAIR_CASES = 25
"""Attribute pairs with fewer cases are left out of the macro figure, as in the published one."""

RELATION_FILE, ATTRIBUTION_FILE = "visual_genome_relation.json", "visual_genome_attribution.json"

_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
_KEYS = ("image_path", *_BOX, "true_caption", "false_caption")
_LAYOUT = "a list of {image_path, bbox_x, bbox_y, bbox_w, bbox_h, true_caption, false_caption, %s}"


def vg_relation(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read VG-Relation. Its headline is the mean over relations that are not symmetric.

    `acc` is over all items. `path` is the file or its folder. Images are in `images`, or by default in
    `images/` next to the file.

    Raises:
        EvaluationError: no such file, or another layout.
    """
    items = _read(path, RELATION_FILE, "relation_name", images, _relation)
    relations = sorted({tag for item in items for tag in item.tags})
    kept = tuple(relation for relation in relations if relation not in SYMMETRIC_RELATIONS)
    return CaptionChoice("vg-relation", items, {}, macro_tags=kept)


def vg_attribution(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read VG-Attribution. Its headline is the mean over pairs of attributes with at least 25 cases.

    Raises: as `vg_relation`.
    """
    items = _read(path, ATTRIBUTION_FILE, "attributes", images, _attributes)
    cases = Counter(tag for item in items for tag in item.tags)
    kept = tuple(sorted(pair for pair, count in cases.items() if count >= MIN_PAIR_CASES))
    return CaptionChoice("vg-attribution", items, {}, macro_tags=kept)


def _read(
    path: Path, name: str, key: str, images: Path | None, tag_of: Callable[[dict[str, Any], str], str]
) -> tuple[Item, ...]:
    file = path / name if path.is_dir() else path
    folder = images or file.parent / "images"
    if not file.is_file():
        raise EvaluationError(f"There is no file {file}; give {name} or its folder.")
    layout = _LAYOUT % key
    found = records(read_json(file, layout), file, layout)
    if not folder.is_dir():
        raise EvaluationError(
            f"There is no folder {folder}. Put the images into such a folder, or name another one with the option "
            "images."
        )
    items = []
    for number, record in enumerate(found):
        where = f"{file}, [{number}]"
        require_keys(record, (*_KEYS, key), where, layout)
        image = image_path(folder, text_of(record, "image_path", where), where)
        items.append(
            Item(
                id=str(number),
                images=(ImageRegion(image, _box(record, where)),),
                captions=(text_of(record, "true_caption", where), text_of(record, "false_caption", where)),
                tags=(tag_of(record, where),),
            )
        )
    return tuple(items)


def _relation(record: dict[str, Any], where: str) -> str:
    return text_of(record, "relation_name", where)


def _attributes(record: dict[str, Any], where: str) -> str:
    value = record["attributes"]
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(word, str) for word in value):
        raise EvaluationError(f"{where}: `attributes` must be two texts; its value is {quoted(value)}.")
    return f"{value[0]}_{value[1]}"


def _box(record: dict[str, Any], where: str) -> tuple[int, int, int, int]:
    values = [record[key] for key in _BOX]
    for key, value in zip(_BOX, values, strict=True):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole:
            raise EvaluationError(
                f"{where}: `{key}` must be a whole number of pixels; its value is {quoted(value)}."
            )
    left, top, width, height = map(int, values)
    return left, top, width, height


_SYMMETRIC = """
adjusting, attached to, between, bigger than, biting, boarding, brushing, chewing, cleaning, climbing, close to,
coming from, coming out of, contain, crossing, dragging, draped over, drinking, drinking from, driving,
driving down, driving on, eating from, eating in, enclosing, exiting, facing, filled with, floating in,
floating on, flying, flying above, flying in, flying over, flying through, full of, going down, going into,
going through, grazing in, growing in, growing on, guiding, hanging from, hanging in, hanging off, hanging over,
higher than, holding onto, hugging, in between, jumping off, jumping on, jumping over, kept in, larger than,
leading, leaning over, leaving, licking, longer than, looking in, looking into, looking out, looking over,
looking through, lying next to, lying on top of, making, mixed with, mounted on, moving, on the back of,
on the edge of, on the front of, on the other side of, opening, painted on, parked at, parked beside, parked by,
parked in, parked in front of, parked near, parked next to, perched on, petting, piled on, playing, playing in,
playing on, playing with, pouring, reaching for, reading, reflected on, riding on, running in, running on,
running through, seen through, sitting behind, sitting beside, sitting by, sitting in front of, sitting near,
sitting next to, sitting under, skiing down, skiing on, sleeping in, sleeping on, smiling at, sniffing,
splashing, sprinkled on, stacked on, standing against, standing around, standing behind, standing beside,
standing in front of, standing near, standing next to, staring at, stuck in, surrounding, swimming in, swinging,
talking to, topped with, touching, traveling down, traveling on, tying, typing on, underneath, wading in,
waiting for, walking across, walking by, walking down, walking next to, walking through, working in, working on,
worn on, wrapped around, wrapped in, by, of, near, next to, with, beside, on the side of, around
"""

SYMMETRIC_RELATIONS = frozenset(" ".join(_SYMMETRIC.split()).split(", "))
"""Relations that ARO's authors leave out of VG-Relation's headline, from their published notebook."""
