"""ARO's COCO-Order and Flickr-Order: a true caption against wrong orders of its words.

The authors' code draws the orders anew in every run. Here a set is made once from a seed (`shuffles.py`), stored, and
named by its hash, which every result states.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.atomic import write_atomic
from models.evaluation.caption_choice import CaptionChoice
from models.evaluation.captions_file import read_captions
from models.evaluation.errors import EvaluationError
from models.evaluation.items import Item, image_folder, image_path, text_of
from models.evaluation.json_files import read_json
from models.evaluation.results import ImageRegion
from models.evaluation.shuffles import cleaned, shuffled_captions
from models.files import sha256_of

FILES = {"coco-order": "coco_karpathy_test.json", "flickr-order": "flickr30k_test.json"}
LAYOUT = "an order set, {hash, seed, items: [{image, caption_options: [true, false, ...]}]}, or such a list"


@dataclass(frozen=True)
class OrderSet:
    """Images, each with a true caption and wrong orders of it."""

    cases: tuple[tuple[str, tuple[str, ...]], ...]
    seed: int | None
    """None where the set was made elsewhere."""
    without_other_order: int
    """Captions that were left out, since their words have only one order."""

    @property
    def hash(self) -> str:
        """SHA-256 of the cases in their order."""
        return hashlib.sha256(json.dumps(self.cases).encode()).hexdigest()


def order_benchmark(
    name: str, path: Path, images: Path | None, sets: Path, *, seed: int = 0
) -> CaptionChoice:
    """Read the captions file, or its folder, and the order set of it in the folder `sets`, which is made if need be.

    `path` may be an order set itself. Images lie in `images`, else in `images/` or beside the file. The true caption
    must score strictly above all of its wrong orders.

    Raises:
        EvaluationError: no such file or folder, it is laid out otherwise, or the stored set is damaged.
    """
    file = path / FILES[name] if path.is_dir() else path
    if not file.is_file():
        raise EvaluationError(f"{file}: no such file; give {FILES[name]} or its folder.")
    other = next((one for one, known in FILES.items() if one != name and file.name == known), None)
    if other is not None:
        raise EvaluationError(f"{file}: is the file of {other}; give {FILES[name]}.")
    made = _stored(file) if _is_order_set(file) else _made_once(name, file, images, sets, seed)
    folder = image_folder(images, file.parent, "images", first=made.cases[0][0])
    items = tuple(
        Item(
            id=str(number),
            images=(ImageRegion(image_path(folder, image, f"{file}, case {number}")),),
            captions=captions,
        )
        for number, (image, captions) in enumerate(made.cases)
    )
    settings = {
        "order_set_hash": made.hash,
        "order_set_seed": made.seed,
        "captions_without_other_order": made.without_other_order,
    }
    return CaptionChoice(name, items, settings)


def make_order_set(file: Path, images: Path | None = None, *, seed: int = 0) -> OrderSet:
    """Every caption of a file with up to four wrong orders, a pure function of the file and the seed.

    Raises: as `read_captions`, or EvaluationError where no caption has another order.
    """
    cases = []
    without = place = 0
    for image in read_captions(file, images):
        for caption in image.captions:
            true = cleaned(caption)
            wrong = shuffled_captions(true, seed=seed, place=place)
            place += 1
            if wrong:
                cases.append((image.name, (true, *wrong)))
            else:
                without += 1
    if not cases:
        raise EvaluationError(f"{file}: no caption has words that can be put in another order.")
    return OrderSet(tuple(cases), seed, without)


def _made_once(name: str, file: Path, images: Path | None, sets: Path, seed: int) -> OrderSet:
    source = sha256_of(file)
    stored = sets / f"{name}-{source[:16]}-seed{seed}.json"
    if stored.is_file():
        return _stored(stored)
    made = make_order_set(file, images, seed=seed)
    content = {
        "hash": made.hash,
        "seed": seed,
        "made_from_sha256": source,
        "without_other_order": made.without_other_order,
        "items": [{"image": image, "caption_options": captions} for image, captions in made.cases],
    }
    write_atomic(stored, json.dumps(content, ensure_ascii=False, indent=0))
    return made


def _is_order_set(file: Path) -> bool:
    content = read_json(file, LAYOUT)
    if isinstance(content, list):
        return bool(content) and isinstance(content[0], dict) and "caption_options" in content[0]
    return isinstance(content, dict) and "items" in content


def _stored(file: Path) -> OrderSet:
    content = read_json(file, LAYOUT)
    if isinstance(content, list):
        content = {"items": content}
    try:
        made = OrderSet(
            tuple(
                _case(record, f"{file}, items[{number}]") for number, record in enumerate(content["items"])
            ),
            content.get("seed"),
            int(content.get("without_other_order", 0)),
        )
    except (KeyError, TypeError) as error:
        raise EvaluationError(f"{file}: must be {LAYOUT}.") from error
    if made.hash != content.get("hash", made.hash) or not made.cases:
        raise EvaluationError(f"{file}: does not have the hash that it states; delete it to make it again.")
    return made


def _case(record: dict[str, Any], where: str) -> tuple[str, tuple[str, ...]]:
    options = record["caption_options"]
    if not isinstance(options, list) or len(options) < 2:
        raise EvaluationError(f"{where}: `caption_options` must be a true caption and false ones.")
    captions = tuple(text_of({"caption_options": option}, "caption_options", where) for option in options)
    return text_of(record, "image", where), captions
