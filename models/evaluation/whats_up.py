"""What'sUp: where is an object? Captions of photographs that differ in a preposition (Kamath et al. 2023).

There are three benchmarks of two files each (arXiv 2310.19785). The first caption of an image is the true one.

- What'sUp (`whats-up`): `controlled_images_dataset.json` and `controlled_clevr_dataset.json`, lists of
  {image_path, caption_options}. The same two objects were photographed in four relations: a set. Images are named
  OBJECT_RELATION_OBJECT.jpeg, such as data/controlled_images/beer-bottle_on_armchair.jpeg.
- COCO-spatial (`coco-spatial`): `coco_qa_one_obj.json` and `coco_qa_two_obj.json`, lists of
  [image id, true caption, false caption]; `val2017/`, where an id has twelve digits.
- GQA-spatial (`gqa-spatial`): `vg_qa_one_obj.json` and `vg_qa_two_obj.json`, the same with `vg_images/ID.jpg`.

Layouts, relations, pairs, sets, and what these are divided by, are those of dataset_zoo/aro_datasets.py in
github.com/amitakamath/whatsup_vlms (at commit 8ba8b2a13893029a1391df91eecc78cd3d499142). The labels are used as they
are: its issue 4 reports that two images of a pillow and a chair have each other's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from models.errors import EvaluationError, quoted
from models.evaluation.annotations import (
    annotation_files,
    files_missing,
    image_folder,
    image_path,
    read_json,
    read_records,
    text_of,
)
from models.evaluation.caption_choice import CaptionChoice
from models.evaluation.items import Item
from models.evaluation.results import ImageRegion

CONTROLLED = {
    "controlled_images_dataset.json": ("Controlled_Images_A", (("left", "right"), ("on", "under"))),
    "controlled_clevr_dataset.json": ("Controlled_Images_B", (("left", "right"), ("in-front", "behind"))),
}
"""Each file's subset, under the authors' name, and its pairs of opposite relations."""

LAST_WORD = ()
COCO = {
    "coco_qa_one_obj.json": ("COCO_QA_one_obj", LAST_WORD),
    "coco_qa_two_obj.json": ("COCO_QA_two_obj", ("left of", "right of", "above", "below")),
}
GQA = {
    "vg_qa_one_obj.json": ("VG_QA_one_obj", LAST_WORD),
    "vg_qa_two_obj.json": ("VG_QA_two_obj", ("left of", "right of", "front of", "behind", "top")),
}
"""Each file's subset, and the relations that a true caption may name. The last one is that of all other captions."""

CONTROLLED_LAYOUT = "a list of {image_path, caption_options: [true, false, ...]}, as What'sUp has it"
SPATIAL_LAYOUT = "a list of [image id, true caption, false caption], as What'sUp has it"


def whats_up(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read the controlled photographs A and B from their folder, or one of their two files.

    The headline is the mean of A and B. A set of four images also counts as a whole (`set_acc`), and so do its two
    pairs of opposite relations (`pair_acc`): n images are n / 4 sets and n / 2 pairs. The folders `controlled_images/`
    and `controlled_clevr/` are in `images`, or by default next to the files.

    Raises:
        EvaluationError: no such file, or another layout.
    """
    files = _files(path, CONTROLLED)
    items: list[Item] = []
    groups: dict[str, list[tuple[str, ...]]] = {"pair": [], "set": []}
    for file in files:
        _, pairs = CONTROLLED[file.name]
        sets: dict[tuple[str, str], dict[str, str]] = {}
        for objects, relation, item in _controlled(file, image_folder(images, file.parent)):
            sets.setdefault(objects, {})[relation] = item.id
            items.append(item)
        for of in sets.values():
            groups["pair"] += _groups(of, pairs)
            groups["set"] += _groups(of, [[*pairs[0], *pairs[1]]])
    return CaptionChoice(
        "whats-up",
        tuple(items),
        {"_groups": groups, **files_missing(files, list(CONTROLLED))},
        macro_tags=tuple(CONTROLLED[file.name][0] for file in files),
        groups=groups,
        group_sizes={"pair": 2, "set": 4},
    )


def _controlled(file: Path, folder: Path) -> Iterator[tuple[tuple[str, str], str, Item]]:
    """Yield the two objects of each image, their relation, and the image's item."""
    subset, pairs = CONTROLLED[file.name]
    records = read_records(file, ("image_path", "caption_options"), CONTROLLED_LAYOUT)
    for number, (where, record) in enumerate(records):
        name = text_of(record, "image_path", where)
        image_path(folder, name, where)  # refuses a name that leads out of the folder
        image = PurePosixPath(name)
        objects, relation = _shown(image.stem, [*pairs[0], *pairs[1]], where)
        # Paths begin with data/, the authors' name for the file's folder.
        region = ImageRegion(image_path(folder, "/".join(image.parts[-2:]), where))
        captions = _texts(record["caption_options"], where, CONTROLLED_LAYOUT)
        yield objects, relation, _item(subset, number, region, captions, relation)


def coco_spatial(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read COCO-spatial from its folder, or one of its two files. The headline is the mean of the two.

    The images are in `images`, or by default in `val2017/` or next to the files. Raises: as `whats_up`.
    """
    return _spatial("coco-spatial", COCO, path, images, "val2017", digits=12)


def gqa_spatial(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read GQA-spatial, as `coco_spatial`, with its images in `vg_images/`. Raises: as `whats_up`."""
    return _spatial("gqa-spatial", GQA, path, images, "vg_images", digits=0)


def _spatial(
    name: str,
    subsets: Mapping[str, tuple[str, tuple[str, ...]]],
    path: Path,
    images: Path | None,
    beside: str,
    *,
    digits: int,
) -> CaptionChoice:
    files = _files(path, subsets)
    folder = image_folder(images, files[0].parent, beside)
    items = []
    for file in files:
        subset, relations = subsets[file.name]
        content = read_json(file, SPATIAL_LAYOUT)
        if not isinstance(content, list) or not content:
            raise EvaluationError(f"{file} must be {SPATIAL_LAYOUT}. Is it the file of another benchmark?")
        for number, record in enumerate(content):
            where = f"{file}, [{number}]"
            if not isinstance(record, list) or len(record) != 3 or type(record[0]) not in (int, str):
                raise EvaluationError(
                    f"{where} is not an image id and two captions; the file must be {SPATIAL_LAYOUT}."
                )
            region = ImageRegion(image_path(folder, f"{str(record[0]).zfill(digits)}.jpg", where))
            captions = _texts(record[1:], where, SPATIAL_LAYOUT)
            items.append(_item(subset, number, region, captions, _named(captions[0], relations)))
    return CaptionChoice(
        name,
        tuple(items),
        files_missing(files, list(subsets)),
        macro_tags=tuple(subsets[file.name][0] for file in files),
    )


def _files(path: Path, subsets: Mapping[str, object]) -> list[Path]:
    files = annotation_files(path, list(subsets), "What'sUp")
    if files[0].name not in subsets:
        raise EvaluationError(
            f"{files[0]} is not one of {', '.join(subsets)}; give one of these or their folder."
        )
    return files


def _item(subset: str, number: int, region: ImageRegion, captions: tuple[str, ...], relation: str) -> Item:
    return Item(
        id=f"{subset}/{number}", images=(region,), captions=captions, tags=(subset, f"{subset}: {relation}")
    )


def _shown(name: str, relations: Sequence[str], where: str) -> tuple[tuple[str, str], str]:
    """Return the two objects and their relation from an image's name, such as beer-bottle_left_of_armchair."""
    parts = name.split("_")
    if len(parts) < 3 or parts[1] not in relations:
        raise EvaluationError(
            f"{where}: the image name {quoted(name)} does not say what it shows; it must be OBJECT_RELATION_OBJECT, "
            f"where the relation begins with one of {', '.join(relations)}."
        )
    return (parts[0], parts[-1]), parts[1]


def _named(caption: str, relations: Sequence[str]) -> str:
    """Return the first of these relations that a caption names, else the last one; its last word if there are none."""
    if not relations:
        return caption.split()[-1]
    return next((each for each in relations if each in caption), relations[-1]).split()[0]


def _groups(ids: Mapping[str, str], groups: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the ids that there are of each group of relations, without groups of which there is none."""
    found = (tuple(ids[relation] for relation in group if relation in ids) for group in groups)
    return [each for each in found if each]


def _texts(captions: Any, where: str, layout: str) -> tuple[str, ...]:
    if not isinstance(captions, list) or len(captions) < 2:
        raise EvaluationError(f"{where}: there are fewer than two captions; the file must be {layout}.")
    return tuple(text_of({"caption": caption}, "caption", where) for caption in captions)
