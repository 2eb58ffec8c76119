"""Sets of the demo world as in What'sUp: two objects in each of four relations (arXiv 2310.19785).

Each picture goes with four captions that differ in the relation alone. Chance is 25 %.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sds_clip.demo.captions import BEFORE_FRAMES, caption, draw_wording
from sds_clip.demo.winoground_sets import save_png, two_different
from sds_clip.demo.world import Relation, Scene, Split, draw_scene_of, with_relation

WHATS_UP_SEED = 5
FILE = "controlled_images_dataset.json"
RELATION_NAMES = {
    Relation.LEFT: "left_of",
    Relation.RIGHT: "right_of",
    Relation.ABOVE: "on",
    Relation.BELOW: "under",
}
"""The authors' names of the relations in the names of their images."""


@dataclass(frozen=True)
class WhatsUpItem:
    """The same two objects in the four relations: scene i fits caption i alone."""

    scenes: tuple[Scene, ...]
    captions: tuple[str, ...]


def whats_up_items(split: Split, count: int, *, seed: int = WHATS_UP_SEED) -> list[WhatsUpItem]:
    """The items of a part without a repeated caption. A larger set begins with the items of a smaller one."""
    rng = np.random.default_rng((seed, tuple(Split).index(split)))
    items: list[WhatsUpItem] = []
    seen: set[str] = set()
    while len(items) < count:
        item = _draw_item(split, rng)
        if item is not None and seen.isdisjoint(item.captions):
            seen.update(item.captions)
            items.append(item)
    return items


def write_whats_up(folder: Path, items: list[WhatsUpItem]) -> None:
    """Write the authors' own layout: a list of {image_path, caption_options}, whose first option is the right one.

    An image's name says its two objects and their relation.
    """
    images = folder / "controlled_images"
    images.mkdir(parents=True, exist_ok=True)
    records = []
    for number, item in enumerate(items):
        for relation, scene, said in zip(Relation, item.scenes, item.captions, strict=True):
            name = f"{_name(scene, 0)}-{number}_{RELATION_NAMES[relation]}_{_name(scene, 1)}-{number}.png"
            save_png(images / name, scene)
            others = [text for text in item.captions if text != said]
            records.append(
                {"image_path": f"data/controlled_images/{name}", "caption_options": [said, *others]}
            )
    (folder / FILE).write_text(json.dumps(records, indent=0) + "\n", encoding="utf-8")


def _draw_item(split: Split, rng: np.random.Generator) -> WhatsUpItem | None:
    scene = draw_scene_of(split, rng)
    if not two_different(scene):
        return None
    wording = draw_wording(2, rng, complete=True)
    wording = replace(wording, frame=BEFORE_FRAMES[rng.integers(len(BEFORE_FRAMES))], flipped=False)
    scenes = tuple(with_relation(scene, relation, rng) for relation in Relation)
    return WhatsUpItem(scenes, tuple(caption(placed, wording) for placed in scenes))


def _name(scene: Scene, place: int) -> str:
    thing = scene.things[place]
    return f"{thing.colour}-{thing.shape}"
