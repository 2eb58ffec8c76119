"""Images and sets from seeds: photograph-like JPEGs, and sets shaped like Winoground and SugarCrepe."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from sds_clip.demo.winoground_sets import winoground_items, write_winoground
from sds_clip.demo.world import Split
from sds_clip.models.data.open import open_pairs
from sds_clip.models.data.pairs import PairSet

WIDTH, HEIGHT = 640, 480
QUALITY = 90
WORDS = (
    "a", "the", "two", "small", "large", "red", "blue", "green", "old", "young", "wooden", "dog", "cat", "horse",
    "car", "table", "man", "woman", "child", "boat", "tree", "house", "street", "beach", "kitchen", "sits", "stands",
    "runs", "holds", "near", "under", "above", "beside", "with", "on",
)  # fmt: skip
SEED = 5
# SugarCrepe's files, and the published number of items in each.
PARTS = {
    "add_att": 692,
    "add_obj": 2062,
    "replace_att": 788,
    "replace_obj": 1652,
    "replace_rel": 1406,
    "swap_att": 666,
    "swap_obj": 246,
}


def scene(seed: int) -> bytes:
    """A 640x480 JPEG: a sky-like gradient, soft-edged ellipses, coarse texture and sensor grain.

    Natural images fall off in frequency and carry noise; both determine the cost of decoding. The grain is
    set so that a file takes 60 to 100 KB, like a phone's picture of this size.
    """
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    slope = generator.uniform(-1, 1, size=(2, 3)) * 60
    pixels = (
        generator.uniform(60, 200, size=3)
        + (x[..., None] / WIDTH) * slope[0]
        + (y[..., None] / HEIGHT) * slope[1]
    )
    for _ in range(12):
        centre_x, centre_y = generator.uniform(0, WIDTH), generator.uniform(0, HEIGHT)
        radius_x, radius_y = generator.uniform(20, 160, size=2)
        distance = np.hypot((x - centre_x) / radius_x, (y - centre_y) / radius_y)
        cover = np.clip((1 - distance) * 20, 0, 1)[..., None]
        pixels = pixels * (1 - cover) + generator.uniform(0, 255, size=3) * cover
    pixels = (
        pixels
        + _texture(generator, cells=(30, 40), strength=12)
        + _texture(generator, cells=(120, 160), strength=9)
    )
    grain = generator.uniform(2.5, 5.5)
    return _jpeg(pixels + generator.normal(0, grain, size=(HEIGHT, WIDTH, 1)))


def make_images(folder: Path, count: int, width: int = WIDTH) -> list[Path]:
    """Write the first `count` scenes to `folder`, as wide as asked; existing files are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed:04d}.jpg" for seed in range(count)]
    for seed, path in enumerate(paths):
        if not path.exists():
            path.write_bytes(scene(seed) if width == WIDTH else resized(scene(seed), width, seed))
    return paths


def resized(jpeg: bytes, width: int, seed: int) -> bytes:
    """A scene at another width, with new grain: without it, a large file would cost less than a camera's."""
    size = (width, width * HEIGHT // WIDTH)
    pixels = np.asarray(Image.open(BytesIO(jpeg)).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    grain = np.random.default_rng(seed).normal(0, 4, size=(size[1], size[0], 1))
    return _jpeg(pixels + grain)


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _texture(generator: np.random.Generator, *, cells: tuple[int, int], strength: float) -> np.ndarray:
    coarse = Image.fromarray(generator.normal(0, strength, size=cells).astype(np.float32))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))[..., None]


def make_pairs(folder: Path, count: int) -> PairSet:
    """Write `count` 640x480 JPEGs with a caption each, as a COCO captions file."""
    paths = make_images(folder / "images", count)
    draw = random.Random(SEED)
    content = {
        "images": [{"id": number, "file_name": path.name} for number, path in enumerate(paths)],
        "annotations": [
            {"image_id": number, "caption": " ".join(draw.choices(WORDS, k=10))} for number in range(count)
        ],
    }
    file = folder / f"captions-{count}.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return open_pairs(file, images=folder / "images")


def winoground_set(folder: Path, items: int) -> Path:
    """Items of two unique 640x480 JPEGs and two captions of the same ten words."""
    make_images(folder / "images", 2 * items)
    draw = random.Random(SEED)
    captions = []
    for _ in range(items):
        words = draw.sample(WORDS, k=10)
        captions.append((" ".join(words), " ".join(reversed(words))))
    return _write_winoground(folder, [f"{number:04d}" for number in range(2 * items)], captions)


def sugarcrepe_set(folder: Path, items: int) -> Path:
    """About `items` items in seven files with SugarCrepe's proportions.

    All files draw from the same JPEGs, a third as many as items, as SugarCrepe draws from COCO's val2017. An
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
    """Winoground's layout with 32x32 PNGs of noise, which are quick to make in large numbers."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    names = [f"{number:05d}" for number in range(2 * items)]
    generator = np.random.default_rng(SEED)
    for name in names:
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{name}.png")
    captions = [(f"{number} before another", f"another before {number}") for number in range(items)]
    return _write_winoground(folder, names, captions)


def demo_set(folder: Path, items: int) -> Path:
    """Items of the demo world that the teacher has not seen."""
    write_winoground(folder, winoground_items(Split.VALIDATION, items, kinds=["objects"], seed=SEED))
    return folder


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
