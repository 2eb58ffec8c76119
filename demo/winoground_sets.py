"""Winoground-style sets of the demo world, stored in Winoground's own layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from sds_clip.demo.captions import PLAIN_FRAMES, Wording, caption, draw_wording
from sds_clip.demo.render import render
from sds_clip.demo.world import Scene, Split, draw_scene_of, with_colours_exchanged, with_places_exchanged

KINDS = ("attributes", "objects", "relation")
COLOR_SWAP = "color swap"
"""A kind as in ColorSwap: the captions name the two objects without a relation."""
WINOGROUND_SEED = 3
ITEMS_PER_KIND = 150


@dataclass(frozen=True)
class WinogroundItem:
    """Two scenes and their captions: scene i fits caption i and not the other."""

    kind: str
    scenes: tuple[Scene, Scene]
    captions: tuple[str, str]


def winoground_items(
    split: Split,
    per_kind: int = ITEMS_PER_KIND,
    *,
    kinds: Sequence[str] = KINDS,
    seed: int = WINOGROUND_SEED,
) -> list[WinogroundItem]:
    """The items of a part, kind after kind, without a repeated pair of captions within a kind.

    A larger set begins with the items of a smaller one, in each kind.
    """
    items: list[WinogroundItem] = []
    for kind in kinds:
        seen: set[frozenset[str]] = set()
        rng = np.random.default_rng((seed, tuple(Split).index(split), (*KINDS, COLOR_SWAP).index(kind)))
        while len(seen) < per_kind:
            item = _draw_item(kind, split, rng)
            if item is not None and frozenset(item.captions) not in seen:
                seen.add(frozenset(item.captions))
                items.append(item)
    return items


def write_winoground(folder: Path, items: Sequence[WinogroundItem]) -> None:
    """Write `examples.jsonl` and `images/ex_ID_img_{0,1}.png`."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, item in enumerate(items):
        stems = [f"ex_{number}_img_{side}" for side in (0, 1)]
        for stem, scene in zip(stems, item.scenes, strict=True):
            save_png(images / f"{stem}.png", scene)
        record = {
            "id": number,
            "image_0": stems[0],
            "image_1": stems[1],
            "caption_0": item.captions[0],
            "caption_1": item.captions[1],
            "tag": item.kind,
            "secondary_tag": "",
            "num_main_preds": 1,
            "collapsed_tag": item.kind,
        }
        lines.append(json.dumps(record))
    (folder / "examples.jsonl").write_text("\n".join(lines) + "\n")


def save_png(path: Path, scene: Scene) -> None:
    """Save a scene losslessly as a palette PNG, about half the size of an RGB one."""
    pixels = render(scene)
    palette, places = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    image = Image.fromarray(places.reshape(pixels.shape[:2]).astype(np.uint8))
    image.putpalette(palette.tobytes())
    image.save(path, optimize=True)


def two_different(scene: Scene) -> bool:
    """Whether a scene has two objects that differ in shape and in colour."""
    if len(scene.things) == 1:
        return False
    first, second = scene.things
    return first.shape != second.shape and first.colour != second.colour


def _draw_item(kind: str, split: Split, rng: np.random.Generator) -> WinogroundItem | None:
    """Draw a scene and its counterpart; None if the draw has no counterpart of this kind."""
    scene = draw_scene_of(split, rng)
    if not two_different(scene):
        return None
    wording = draw_wording(2, rng, complete=True)
    if kind == COLOR_SWAP:
        wording = replace(wording, frame=PLAIN_FRAMES[rng.integers(len(PLAIN_FRAMES))])
    other_scene, other_wording = counterpart(kind, scene, wording)
    captions = (caption(scene, wording), caption(other_scene, other_wording))
    if kind != "relation" and sorted(captions[0].split()) != sorted(captions[1].split()):
        return None  # an article changed along with the word after it
    return WinogroundItem(kind, (scene, other_scene), captions)


def counterpart(kind: str, scene: Scene, wording: Wording) -> tuple[Scene, Wording]:
    """The other scene of an item of a kind, and how it is put into words."""
    if kind in ("attributes", COLOR_SWAP):
        return with_colours_exchanged(scene), wording
    if kind == "objects":
        return with_places_exchanged(scene), replace(wording, flipped=not wording.flipped)
    return with_places_exchanged(scene), wording
