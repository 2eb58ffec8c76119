"""Distinct photograph-like JPEGs, made from a seed, so that no cache of any server can help it."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 640, 480
QUALITY = 90


def scene(seed: int) -> bytes:
    """A 640x480 JPEG: a sky-like gradient, soft-edged ellipses, coarse texture and sensor grain.

    Natural images fall off in frequency and carry noise; both decide what a decoder costs. The
    grain is set so that a file takes 60 to 100 KB, as a phone's picture of this size does.
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
    pixels = pixels + generator.normal(0, grain, size=(HEIGHT, WIDTH, 1))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def make_images(folder: Path, count: int) -> list[Path]:
    """The first `count` scenes as files in `folder`; those already there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed:04d}.jpg" for seed in range(count)]
    for seed, path in enumerate(paths):
        if not path.exists():
            path.write_bytes(scene(seed))
    return paths


def _texture(generator: np.random.Generator, *, cells: tuple[int, int], strength: float) -> np.ndarray:
    coarse = Image.fromarray(generator.normal(0, strength, size=cells).astype(np.float32))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))[..., None]
