"""ARO's VG-Relation and VG-Attribution: a box of an image, a true caption and a false one (arXiv 2210.01936).

A file is a list of {image_path, bbox_x, bbox_y, bbox_w, bbox_h, true_caption, false_caption} with a
`relation_name` or with two `attributes`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from sds_clip.models.errors import EvaluationError, quoted
from sds_clip.models.evaluation.annotations import Record, the_file
from sds_clip.models.evaluation.caption_choice import CaptionChoice
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.layouts import Layout
from sds_clip.models.images.ref import ImageRef

MIN_PAIR_CASES = 25
"""Attribute pairs with fewer cases are left out of the macro figure, as in the published one."""

_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


def vg_relation(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read VG-Relation. Its headline is the mean over relations that are not symmetric.

    `acc` is over all items. `path` is the file or its folder. Images are in `images`, or by default in
    `images/` next to the file.

    Raises:
        EvaluationError: no such file, or another layout.
    """
    items = _read(path, "visual_genome_relation.json", images, RELATION)
    kept = {tag for item in items for tag in item.tags} - SYMMETRIC_RELATIONS
    return CaptionChoice("vg-relation", items, {}, macro_tags=tuple(sorted(kept)))


def vg_attribution(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read VG-Attribution. Its headline is the mean over pairs of attributes with at least 25 cases.

    Raises: as `vg_relation`.
    """
    items = _read(path, "visual_genome_attribution.json", images, ATTRIBUTION)
    cases = Counter(tag for item in items for tag in item.tags)
    kept = tuple(sorted(pair for pair, count in cases.items() if count >= MIN_PAIR_CASES))
    return CaptionChoice("vg-attribution", items, {}, macro_tags=kept)


def _read(path: Path, name: str, images: Path | None, layout: Layout) -> tuple[Item, ...]:
    file = the_file(path, name)
    found = list(layout.records([file]))
    folder = images or file.parent / "images"
    if not folder.is_dir():
        raise EvaluationError(
            f"There is no folder {folder}. Put the images into such a folder, or name another one with the option "
            "images."
        )
    return layout.items(found, folder)


def _boxed(record: Record, key: str, folder: Path) -> ImageRef:
    image = record.image(key, folder)
    for side in _BOX:
        value = record.values[side]
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole:
            raise EvaluationError(
                f"{record.where}: `{side}` must be a whole number of pixels; its value is {quoted(value)}."
            )
    left, top, width, height = (int(record.values[side]) for side in _BOX)
    return ImageRef(image.path, (left, top, width, height))


def _attributes(record: Record) -> list[str]:
    value = record.values["attributes"]
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(word, str) for word in value):
        raise EvaluationError(
            f"{record.where}: `attributes` must be two texts; its value is {quoted(value)}."
        )
    return ["_".join(value)]


def _layout(key: str, tags: Callable[[Record], Sequence[str]]) -> Layout:
    captions = ("true_caption", "false_caption")
    keys = ("image_path", *_BOX, *captions, key)
    return Layout(f"a list of {{{', '.join(keys)}}}", keys, ("image_path",), captions, _boxed, tags)


RELATION = _layout("relation_name", lambda record: [record.text("relation_name")])
ATTRIBUTION = _layout("attributes", _attributes)

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
