"""Image-caption pairs, each a pure function of its part, seed and index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from sds_clip.demo.captions import caption, draw_wording
from sds_clip.demo.render import render
from sds_clip.demo.world import COLOURS, SHAPES, Scene, Split, combination, draw_scene_of

RETRIEVAL_SEED = 1
RETRIEVAL_BATCH = 128
CLASSIFICATION_SEED = 2
CLASS_TEMPLATES = ("{}", "a {}", "a photo of a {}", "a picture of a {}")
_PART = {Split.TRAIN: 0, Split.VALIDATION: 1, Split.HELD_OUT: 2}


@dataclass(frozen=True)
class Pairs:
    """Images, the caption of each, and the scenes that both describe."""

    images: UInt8[np.ndarray, "n 64 64 3"]
    captions: list[str]
    scenes: list[Scene]


@dataclass(frozen=True)
class Labelled:
    """Images, and the index of each one's label in `labels`."""

    images: UInt8[np.ndarray, "n 64 64 3"]
    targets: list[int]
    labels: list[str]


def training_pairs(seed: int, start: int, count: int) -> Pairs:
    return pairs(Split.TRAIN, seed, start, count)


def retrieval_set(split: Split, count: int = 512, *, seed: int = RETRIEVAL_SEED) -> Pairs:
    """The pairs of a part that retrieval is measured on, in batches of 128 without repeated combinations.

    A part other than training has a tenth of the combinations, so a random batch would repeat some (above all
    single objects, of which a part has 19). Even a perfect model could not tell those apart.
    """
    chosen: list[Pairs] = []
    index = 0
    while len(chosen) < count:
        if len(chosen) % RETRIEVAL_BATCH == 0:
            in_batch: set[str] = set()
        pair = pairs(split, seed, index, 1)
        index += 1
        if (name := combination(pair.scenes[0])) not in in_batch:
            in_batch.add(name)
            chosen.append(pair)
    return Pairs(
        np.concatenate([pair.images for pair in chosen]),
        [pair.captions[0] for pair in chosen],
        [pair.scenes[0] for pair in chosen],
    )


def pairs(split: Split, seed: int, start: int, count: int) -> Pairs:
    """Pairs of a part; pair i depends only on (split, seed, i)."""
    drawn: list[Scene] = []
    captions: list[str] = []
    for index in range(start, start + count):
        rng = np.random.default_rng((seed, _PART[split], index))
        drawn.append(scene := draw_scene_of(split, rng))
        captions.append(caption(scene, draw_wording(len(scene.things), rng)))
    return Pairs(np.stack([render(scene) for scene in drawn]), captions, drawn)


def scenes(split: Split, seed: int, start: int, count: int) -> list[Scene]:
    """The scenes of `pairs`, without images and captions."""
    return [
        draw_scene_of(split, np.random.default_rng((seed, _PART[split], index)))
        for index in range(start, start + count)
    ]


def classification_set(split: Split, count: int = 512, *, seed: int = CLASSIFICATION_SEED) -> Labelled:
    """Single objects of a part's combinations, to be classified among all 192 names like `red circle`."""
    labels = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    images: list[NDArray[np.uint8]] = []
    targets: list[int] = []
    rng = np.random.default_rng((seed, _PART[split]))
    while len(images) < count:
        scene = draw_scene_of(split, rng)
        if len(scene.things) == 1:
            images.append(render(scene))
            targets.append(labels.index(f"{scene.things[0].colour} {scene.things[0].shape}"))
    return Labelled(np.stack(images), targets, labels)
