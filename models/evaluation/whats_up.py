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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

from sds_clip.models.errors import EvaluationError, quoted
from sds_clip.models.evaluation.annotations import Record, image_path, other_layout, read_json
from sds_clip.models.evaluation.caption_choice import CaptionChoice
from sds_clip.models.evaluation.layouts import Layout, Numbered
from sds_clip.models.images.ref import ImageRef

OPPOSITES = {
    "Controlled_Images_A": (("left", "right"), ("on", "under")),
    "Controlled_Images_B": (("left", "right"), ("in-front", "behind")),
}
"""The pairs of opposite relations of each subset, under the authors' names."""

LAST_WORD = ()
RELATIONS = {
    "COCO_QA_one_obj": LAST_WORD,
    "COCO_QA_two_obj": ("left of", "right of", "above", "below"),
    "VG_QA_one_obj": LAST_WORD,
    "VG_QA_two_obj": ("left of", "right of", "front of", "behind", "top"),
}
"""The relations that a true caption of a subset may name. The last one is that of all other captions."""


def whats_up(path: Path, images: Path | None = None) -> CaptionChoice:
    """Read the controlled photographs A and B from their folder, or one of their two files. Raises: as `Layout.read`.

    The headline is the mean of A and B. A set of four images also counts as a whole (`set_acc`), and so do its two
    pairs of opposite relations (`pair_acc`), by GroupMatch too (`set_match`, `pair_match`): n images are n / 4 sets and
    n / 2 pairs. The folders `controlled_images/` and `controlled_clevr/` are in `images`, or by default next to the
    files.
    """
    benchmark = CONTROLLED.choice(path, images)
    sets: dict[tuple[str, tuple[str, str]], dict[str, str]] = {}
    for item in benchmark.items:
        objects, relation = _shown(item.images[0].path.name)
        sets.setdefault((item.tags[0], objects), {})[relation] = item.id
    groups: dict[str, list[tuple[str, ...]]] = {"pair": [], "set": []}
    for (subset, _), ids in sets.items():
        groups["pair"] += _groups(ids, OPPOSITES[subset])
        groups["set"] += _groups(ids, [[*chain(*OPPOSITES[subset])]])
    settings = {"_groups": groups, **benchmark.settings}
    return replace(benchmark, settings=settings, groups=groups, group_sizes={"pair": 2, "set": 4})


def _groups(ids: Mapping[str, str], groups: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the ids that there are of each group of relations, without groups of which there is none."""
    found = (tuple(ids[relation] for relation in group if relation in ids) for group in groups)
    return [each for each in found if each]


def _shown(image: str) -> tuple[tuple[str, str], str]:
    """Return the two objects and the relation that an image's name says, such as beer-bottle_left_of_armchair.jpeg."""
    first, relation, *_, second = PurePosixPath(image).stem.split("_")
    return (first, second), relation


def _photograph(record: Record, key: str, folder: Path) -> ImageRef:
    image = PurePosixPath(record.text(key))
    record.image(key, folder)  # refuses a name that leads out of the folder
    parts, relations = image.stem.split("_"), [*chain(*OPPOSITES[record.source])]
    if len(parts) < 3 or parts[1] not in relations:
        raise EvaluationError(
            f"{record.where}: the image name {quoted(image.stem)} does not say what it shows; it must be "
            f"OBJECT_RELATION_OBJECT, where the relation begins with one of {', '.join(relations)}."
        )
    # Paths begin with data/, the authors' name for the file's folder.
    return ImageRef(image_path(folder, "/".join(image.parts[-2:]), record.where))


def _named(record: Record) -> list[str]:
    """Return the first relation of the subset that the true caption names, else the last one.

    In a subset without relations, it is the caption's last word.
    """
    caption: str = record.values["captions"][0]
    relations = RELATIONS[record.source]
    if not relations:
        return caption.split()[-1:]
    return next((each for each in relations if each in caption), relations[-1]).split()[:1]


def _triples(layout: Layout, file: Path, digits: int) -> Numbered:
    content = read_json(file, layout.words)
    if not isinstance(content, list) or not content:
        raise other_layout(file, layout.words)
    for number, record in enumerate(content):
        where = f"{file}, [{number}]"
        if not isinstance(record, list) or len(record) != 3 or type(record[0]) not in (int, str):
            raise EvaluationError(
                f"{where} is not an image id and two captions; the file must be {layout.words}."
            )
        values = {"image": f"{str(record[0]).zfill(digits)}.jpg", "captions": record[1:]}
        yield number, Record(where, values)


CONTROLLED = Layout(
    name="whats-up",
    is_named=True,
    title="What'sUp",
    words="a list of {image_path, caption_options: [true, false, ...]}, as What'sUp has it",
    files={
        "controlled_images_dataset.json": "Controlled_Images_A",
        "controlled_clevr_dataset.json": "Controlled_Images_B",
    },
    keys=("image_path", "caption_options"),
    images=("image_path",),
    captions=("caption_options",),
    image=_photograph,
    tags=lambda record: [_shown(record.values["image_path"])[1]],
)
COCO = Layout(
    name="coco-spatial",
    is_named=True,
    title="What'sUp",
    words="a list of [image id, true caption, false caption], as What'sUp has it",
    files={"coco_qa_one_obj.json": "COCO_QA_one_obj", "coco_qa_two_obj.json": "COCO_QA_two_obj"},
    folders=("val2017",),
    reader=partial(_triples, digits=12),
    keys=(),
    images=("image",),
    captions=("captions",),
    image=lambda record, key, folder: ImageRef(image_path(folder, record.values[key], record.where)),
    tags=_named,
)
GQA = replace(
    COCO,
    name="gqa-spatial",
    files={"vg_qa_one_obj.json": "VG_QA_one_obj", "vg_qa_two_obj.json": "VG_QA_two_obj"},
    folders=("vg_images",),
    reader=partial(_triples, digits=0),
)
coco_spatial, gqa_spatial = COCO.choice, GQA.choice
