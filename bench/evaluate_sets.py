"""Sets in the shapes of Winoground and SugarCrepe, made from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from bench.images import make_images
from bench.train_parts import WORDS
from demo.sets import pairs
from demo.world import Split

SEED = 5
PARTS = {
    "add_att": 692,
    "add_obj": 2062,
    "replace_att": 788,
    "replace_obj": 1652,
    "replace_rel": 1406,
    "swap_att": 666,
    "swap_obj": 246,
}
"""SugarCrepe's files, and the published number of items in each."""


def winoground_set(folder: Path, items: int) -> Path:
    """Items of two JPEGs of 640x480 that are nobody else's, and two captions of the same ten words."""
    make_images(folder / "images", 2 * items)
    draw = random.Random(SEED)
    captions = []
    for _ in range(items):
        words = draw.sample(WORDS, k=10)
        captions.append((" ".join(words), " ".join(reversed(words))))
    return _write_winoground(folder, [f"{number:04d}" for number in range(2 * items)], captions)


def sugarcrepe_set(folder: Path, items: int) -> Path:
    """About `items` items in seven files as long as SugarCrepe's are to each other.

    Every file draws from the same JPEGs, a third as many as items, as all of SugarCrepe draws from COCO's val2017. An
    image has one true caption, and a false one in each file.
    """
    images = make_images(folder / "val2017", max(1, items // 3))
    draw = random.Random(SEED)
    true = [" ".join(draw.choices(WORDS, k=10)) for _ in images]
    for name, count in PARTS.items():
        chosen = draw.choices(range(len(images)), k=max(1, round(items * count / sum(PARTS.values()))))
        content = {
            str(key): {
                "filename": images[number].name,
                "caption": true[number],
                "negative_caption": " ".join(draw.choices(WORDS, k=10)),
            }
            for key, number in enumerate(chosen)
        }
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def noise_set(folder: Path, items: int) -> Path:
    """Winoground's shape with PNGs of 32x32 noise, so that many are made quickly."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    names = [f"{number:05d}" for number in range(2 * items)]
    generator = np.random.default_rng(SEED)
    for name in names:
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(images / f"{name}.png")
    captions = [(f"{number} before another", f"another before {number}") for number in range(items)]
    return _write_winoground(folder, names, captions)


def demo_set(folder: Path, items: int) -> Path:
    """Winoground's shape with scenes of the demo world that the teacher has not seen."""
    drawn = pairs(Split.VALIDATION, SEED, 0, 2 * items)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}" for number in range(2 * items)]
    for name, pixels in zip(names, drawn.images, strict=True):
        PIL.Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    return _write_winoground(folder, names, list(zip(drawn.captions[::2], drawn.captions[1::2], strict=True)))


def _write_winoground(folder: Path, images: Sequence[str], captions: Sequence[tuple[str, str]]) -> Path:
    lines = [
        json.dumps(
            {
                "id": number,
                "image_0": images[2 * number],
                "image_1": images[2 * number + 1],
                "caption_0": one,
                "caption_1": other,
            }
        )
        for number, (one, other) in enumerate(captions)
    ]
    (folder / "examples.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder
