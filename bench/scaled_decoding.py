"""Measures what it changes to decode JPEGs at a smaller size (decision 93), beside what the precision changes.

Photos are cut, resized to 1 to 50 megapixels and saved as JPEGs of all kinds: 4:2:0 and 4:4:4, baseline and
progressive, RGB, grey and CMYK, turned in eight ways by EXIF, with sides that are multiples of 8, 4 or 2 (odd ones are
decoded in full). The answer to a photo is the best of ImageNet's 1,000 labels. Time is that of one thread, from the
file to the model's input. Photos are on PyPI and in Debian, for example:

    pip download --no-deps scikit-image scikit-learn && apt-get download budgie-backgrounds mate-backgrounds
    for file in *.whl; do unzip -q $file -d .cache/photos; done
    for file in *.deb; do dpkg-deb -x $file .cache/photos; done
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.options import cache_option, option, parse
from bench.report import heading, note
from bench.weights import make_open_clip
from sds_clip.models.checkpoints.load import load_served
from sds_clip.models.clip.encode import encode_texts
from sds_clip.models.clip.zero_shot import LABEL_SETS
from sds_clip.models.images.decode import MAX_PIXELS, ImageLimits, decode_image
from sds_clip.models.markdown import markdown_table

PHOTOS = (
    ".cache/photos/usr/share/backgrounds/budgie",
    ".cache/photos/usr/share/backgrounds/mate/nature",
    ".cache/photos/skimage/data",
    ".cache/photos/sklearn/datasets/images",
)
SEED = 0
BATCH_SIZE = 16
LIMITS = ImageLimits(max_pixels=MAX_PIXELS)
MEGAPIXELS = (1, 3, 8, 16, 50)
MODES = ("RGB", "RGB", "RGB", "RGB", "RGB", "L", "CMYK")
WAYS = tuple(
    (precision, decoding) for precision in ("float32", "bfloat16") for decoding in ("full", "scaled")
)


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    photos: Sequence[str] = option(PHOTOS, "Folders of photos.", kind=str, nargs="+")
    count: int = option(200, "The number of JPEGs that are made of them.", quick=10)
    cache: Path = cache_option()


@dataclass(frozen=True)
class Jpeg:
    """A photo as it is sent."""

    data: bytes
    megapixels: float
    progressive: bool


def jpegs(files: Sequence[Path], count: int) -> Iterator[Jpeg]:
    generator = np.random.default_rng(SEED)
    low, high = np.log(MEGAPIXELS[0]), np.log(MEGAPIXELS[-1])
    for number in range(count):
        photo = Image.open(files[number % len(files)]).convert("RGB")
        shares, place = generator.uniform(0.5, 1, 2), generator.uniform(0, 1, 2)
        width, height = (int(side * share) for side, share in zip(photo.size, shares, strict=True))
        left, top = (
            int((side - cut) * at) for side, cut, at in zip(photo.size, (width, height), place, strict=True)
        )
        photo = photo.crop((left, top, left + width, top + height))
        scale = (1e6 * np.exp(generator.uniform(low, high)) / (width * height)) ** 0.5
        multiple = (8, 4, 2)[number // 32 % 3]
        size = (multiple * round(scale * width / multiple), multiple * round(scale * height / multiple))
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        progressive = bool(number // 16 % 2)
        file = io.BytesIO()
        photo.resize(size, Image.Resampling.LANCZOS).convert(MODES[number % len(MODES)]).save(
            file,
            "JPEG",
            exif=exif,
            quality=int(generator.integers(70, 96)),
            subsampling=(2, 0)[number // 8 % 2],
            progressive=progressive,
        )
        yield Jpeg(file.getvalue(), size[0] * size[1] / 1e6, progressive)


@dataclass(frozen=True)
class Found:
    """The photos' embeddings in each way, and how long it took to prepare each of them in milliseconds."""

    images: dict[tuple[str, str], Tensor]
    texts: dict[str, Tensor]
    milliseconds: dict[str, list[float]]

    def cosines(self, way: tuple[str, str]) -> Tensor:
        return (self.images[way].double() * self.images[WAYS[0]].double()).sum(dim=1)

    def changed(self, way: tuple[str, str]) -> int:
        """How many photos have another best label than decoded in full and in float32."""
        return int((self._best(way) != self._best(WAYS[0])).sum())

    def _best(self, way: tuple[str, str]) -> Tensor:
        return (self.images[way] @ self.texts[way[0]].T).argmax(dim=1)


def measure(reference: str, pictures: Sequence[Jpeg]) -> Found:
    clips = {way: load_served(reference, device="cpu", precision="+".join(way)) for way in WAYS}
    labels = [f"a photo of a {label}" for label in LABEL_SETS["imagenet"]]
    texts = {way[0]: encode_texts(clip, labels) for way, clip in clips.items() if way[1] == "full"}
    rows: dict[tuple[str, str], list[Tensor]] = {way: [] for way in WAYS}
    milliseconds: dict[str, list[float]] = {"full": [], "scaled": []}
    for start in range(0, len(pictures), BATCH_SIZE):
        note(f"{start} of {len(pictures)}")
        for decoding, times in milliseconds.items():
            clip, pixels = clips["float32", decoding], []
            for picture in pictures[start : start + BATCH_SIZE]:
                began = time.thread_time()
                pixels.append(clip.preprocess(decode_image(picture.data, LIMITS, least_side=clip.least_side)))
                times.append(1000 * (time.thread_time() - began))
            for precision in texts:
                rows[precision, decoding].append(clips[precision, decoding].encode_image(torch.stack(pixels)))
    return Found({way: torch.cat(each) for way, each in rows.items()}, texts, milliseconds)


def answers(found: Found) -> str:
    rows = [
        (
            f"{precision}, {decoding}",
            f"{1 - float(found.cosines((precision, decoding)).min()):.1e}",
            f"{1 - float(found.cosines((precision, decoding)).median()):.1e}",
            found.changed((precision, decoding)),
        )
        for precision, decoding in WAYS[1:]
    ]
    return markdown_table(
        ("precision, decoding", "1 - cosine, largest", "median", "other answers"), rows, text=(0,)
    )


def sizes(found: Found, pictures: Sequence[Jpeg]) -> str:
    lost = (1 - found.cosines(("float32", "scaled"))).tolist()
    rows = []
    for progressive, (least, most) in product((False, True), pairwise(MEGAPIXELS)):
        chosen = [
            row
            for row, picture in enumerate(pictures)
            if least <= picture.megapixels < most and picture.progressive is progressive
        ]
        if not chosen:
            continue
        full, scaled = (
            median(found.milliseconds[name][row] for row in chosen) for name in ("full", "scaled")
        )
        largest = max(lost[row] for row in chosen)
        rows.append(
            (
                f"{'progressive' if progressive else 'baseline'}, {least} to {most}",
                len(chosen),
                f"{full:.1f}",
                f"{scaled:.1f}",
                f"{full / scaled:.1f}",
                f"{largest:.1e}",
            )
        )
    header = ("JPEG, megapixels", "photos", "full, ms", "scaled, ms", "times", "1 - cosine, largest")
    return markdown_table(header, rows, text=(0,))


def main(arguments: Sequence[str] | None = None) -> None:
    plan = parse(Plan, "bench.scaled_decoding", __doc__, arguments)
    top = heading("bench.scaled_decoding", arguments)
    torch.set_num_threads(1)
    suffixes = (".jpg", ".jpeg", ".png")
    files = sorted(
        file for folder in plan.photos for file in Path(folder).iterdir() if file.suffix in suffixes
    )
    pictures = list(jpegs(files, plan.count))
    print(f"{top}\n\n{len(pictures)} JPEGs of {len(files)} photos, against full decoding in float32.")
    models = {"ViT-B/32 with random weights": f"local-dir:{make_open_clip(plan.cache / 'vit-b-32')}"}
    for name, reference in (models | {"demo": "demo"}).items():
        note(name)
        found = measure(reference, pictures)
        print(f"\n{name}:\n\n{answers(found)}\n\n{sizes(found, pictures)}", flush=True)


if __name__ == "__main__":
    main()
