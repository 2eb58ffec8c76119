"""Compares simplejpeg, a binding of libjpeg-turbo's TurboJPEG, with Pillow: the pixels bit for bit, and the CPU time.

The corpus has JPEGs of many sizes, subsamplings, modes and kinds. "Ours" is `decode_image` (models/images/decode.py),
which reads the segments, checks the limits, and then lets Pillow decode. Pillow's `draft` decodes at a reduced scale.
"""

from __future__ import annotations

import importlib
import io
import site
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, features

from bench.embedders import install
from bench.options import cache_option, option, parse
from bench.report import heading, note, paired_ratio, spread
from sds_clip.models.clip.preprocess import Preprocess
from sds_clip.models.images.decode import ImageError, decode_image
from sds_clip.models.markdown import markdown_table

REQUIREMENT = "simplejpeg==1.9.0"
SIZES = ((1, 1), (7, 5), (16, 16), (17, 33), (500, 375), (640, 480), (1920, 1080))
TIMED = ((640, 480), (1920, 1080), (4000, 3000))
KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:0": {"subsampling": 2},
    "4:2:0, progressive": {"subsampling": 2, "progressive": True},
}
REDUCED = 224


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    rounds: int = option(15, "Number of interleaved rounds of timing.", quick=2)
    cache: Path = cache_option()


def picture(width: int, height: int) -> Image.Image:
    """Smooth areas with detail at every scale, as a photograph has."""
    rng = np.random.default_rng(width * 10_000 + height)
    total = np.zeros((height, width, 3))
    for cells in (3, 12, 50, 200, 800):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), dtype=float) / cells**0.5
    return Image.fromarray((255 * (total - total.min()) / max(1e-9, np.ptp(total))).astype(np.uint8))


def saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def corpus(width: int, height: int) -> Iterator[tuple[str, bytes]]:
    """Yield the JPEGs of a size, by kind."""
    image = picture(width, height)
    for number, name in enumerate(("4:4:4", "4:2:2", "4:2:0")):
        for quality in (50, 90, 100):
            yield name, saved(image, subsampling=number, quality=quality)
        yield f"{name}, progressive", saved(image, subsampling=number, progressive=True)
    yield "restart markers", saved(image, restart_marker_blocks=3)
    yield "stored as RGB", saved(image, keep_rgb=True)
    yield "grey", saved(image.convert("L"))
    yield "grey, progressive", saved(image.convert("L"), progressive=True)
    yield "CMYK", saved(image.convert("CMYK"))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield "EXIF rotation", saved(image, exif=exif.tobytes())
    whole = saved(image)
    for share in (0.2, 0.5, 0.9):
        yield "truncated", whole[: int(share * len(whole))]


def pixels(decode: Callable[[bytes], Any], data: bytes) -> np.ndarray | None:
    """Return what a decoder makes of a file, or None if it refuses it."""
    try:
        return np.asarray(decode(data))
    except (ImageError, ValueError, RuntimeError):
        return None


def drafted(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (REDUCED, REDUCED))
    return image.convert("RGB").resize((REDUCED, REDUCED), Image.Resampling.BICUBIC)


def equality(turbo: Callable[[bytes], Any]) -> str:
    """By kind: how many files are equal, decoded by one only, and the largest difference of a value."""
    rows: dict[str, list[int]] = {}
    for size in SIZES:
        note(f"corpus of {size[0]}x{size[1]}")
        for kind, data in corpus(*size):
            row = rows.setdefault(kind, [0, 0, 0, 0])
            row[0] += 1
            ours, theirs = pixels(lambda each: decode_image(each, orient=False), data), pixels(turbo, data)
            if ours is None or theirs is None:
                row[2] += (ours is None) != (theirs is None)
                row[1] += ours is None and theirs is None
            elif np.array_equal(ours, theirs):
                row[1] += 1
            else:
                row[3] = max(row[3], int(np.abs(ours.astype(int) - theirs.astype(int)).max()))
    header = ("kind", "files", "the same", "only one decodes", "largest difference")
    return markdown_table(header, [[kind, *row] for kind, row in rows.items()])


def timing(turbo: Callable[[bytes], Any], rounds: int) -> str:
    """The milliseconds of CPU time of each way to a decoded, and to a preprocessed image, in interleaved rounds."""
    preprocess = Preprocess(image_transform_v2(PreprocessCfg(size=REDUCED), is_train=False))

    def ours(data: bytes) -> Image.Image:
        return decode_image(data, orient=False)

    def theirs(data: bytes) -> Image.Image:
        return Image.fromarray(turbo(data))

    ways: dict[str, Callable[[bytes], Any]] = {
        "Pillow, ours": ours,
        "simplejpeg": turbo,
        "simplejpeg as a Pillow image": theirs,
        "ours, preprocessed": lambda data: preprocess(ours(data)),
        "simplejpeg, preprocessed": lambda data: preprocess(theirs(data)),
    }
    rows = []
    for size in TIMED:
        for kind, options in KINDS.items():
            data = saved(picture(*size), **options)
            note(f"time of {size[0]}x{size[1]}, {kind}, {len(data) / 1000:.0f} kB")
            found: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds + 1):
                for way, run in ways.items():
                    started = time.thread_time()
                    run(data)
                    found[way].append(1000 * (time.thread_time() - started))
            times = {way: each[1:] for way, each in found.items()}  # the first round warms up
            gain = paired_ratio(times["ours, preprocessed"], times["simplejpeg, preprocessed"])
            rows.append(
                [f"{size[0]}x{size[1]}", kind, *(spread(each, 1) for each in times.values()), f"{gain:.2f}"]
            )
    return markdown_table(("size", "kind", *(f"{way} ms" for way in ways), "gain"), rows, text=(0, 1))


def draft() -> str:
    """How far Pillow's reduced decoding is from the exact way, after resizing to what a model sees."""
    data = saved(picture(1920, 1080))
    exact = decode_image(data, orient=False).resize((REDUCED, REDUCED), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(drafted(data), dtype=int) - np.asarray(exact, dtype=int))
    return (
        f"Pillow's `draft` before resizing to {REDUCED}: {(difference > 0).mean():.0%} of the values differ, by up to "
        f"{difference.max()}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Install simplejpeg into an environment of its own, and print the report."""
    plan = parse(Plan, "bench.decoders", __doc__, arguments)
    environment = plan.cache / "venv-decoders"
    install(environment, (REQUIREMENT,))
    site.addsitedir(next(environment.glob("lib/python*/site-packages")).as_posix())  # after our own packages
    simplejpeg = importlib.import_module("simplejpeg")

    def turbo(data: bytes) -> Any:
        return simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False)

    about = heading("bench.decoders", arguments)
    versions = (
        f"{REQUIREMENT}; Pillow {version('pillow')} with libjpeg-turbo {features.version('libjpeg_turbo')}."
    )
    print("\n\n".join([about, versions, equality(turbo), timing(turbo, plan.rounds), draft()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
