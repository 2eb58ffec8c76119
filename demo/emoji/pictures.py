"""All vendors' drawings as pixels: 64 x 64 RGBA, rendered once by resvg and kept in one file."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image
import torch
from jaxtyping import UInt8
from torch import Tensor

from sds_clip.demo.emoji.packages import VENDORS, Concept, concepts, drawings

SIDE_PX = 64
_OVERSAMPLED = 4
_LARGEST_SCALE = 1.6
"""So much larger a drawing is made at most, since a small square shall not become a large one."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of concepts by vendors, each once."""

    concepts: Sequence[Concept]
    concept: np.ndarray
    """[n], the index of each picture's concept."""
    vendor: np.ndarray
    """[n], the index of each picture's vendor among VENDORS."""
    pixels: UInt8[np.ndarray, "n 64 64 4"]

    def tensor(self, places: np.ndarray) -> UInt8[Tensor, "n 4 64 64"]:
        """These pictures as a tensor."""
        return torch.from_numpy(self.pixels[places]).permute(0, 3, 1, 2).contiguous()

    def of(self, vendors: Sequence[str], codes: set[str] | None = None) -> np.ndarray:
        """The indices of these vendors' pictures, all or of the concepts with these codes."""
        by_vendor = np.isin(
            self.vendor, [place for place, each in enumerate(VENDORS) if each.name in vendors]
        )
        if codes is None:
            return np.flatnonzero(by_vendor)
        wanted = np.array([each.code in codes for each in self.concepts])
        return np.flatnonzero(by_vendor & wanted[self.concept])


def render_all(modules: Path) -> Pictures:
    """Render the drawings of all vendors. Raises PackageError if a package is not as expected."""
    shown = concepts(modules)
    place = {each.code: number for number, each in enumerate(shown)}
    found = [
        (place[code], number, rendered(svg))
        for number, vendor in enumerate(VENDORS)
        for code, svg in drawings(modules, vendor, shown).items()
    ]
    of_concept, of_vendor, pixels = zip(*found, strict=True)
    return Pictures(shown, np.array(of_concept), np.array(of_vendor), np.stack(pixels))


def rendered(svg: str) -> UInt8[np.ndarray, "64 64 4"]:
    """Render a drawing in the middle of a transparent square, without most of its own margin."""
    import resvg_py  # a package that only this needs

    side = SIDE_PX * _OVERSAMPLED
    content = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, skip_system_fonts=True))
    # Premultiplied, so that edges keep their colours.
    drawn = PIL.Image.open(io.BytesIO(content)).convert("RGBa")
    left, top, right, bottom = drawn.getchannel("a").getbbox() or (0, 0, *drawn.size)
    half = max(right - left, bottom - top, side / _LARGEST_SCALE) / 2
    # In the middle of a larger square, since the part that is kept may reach beyond the drawing.
    square = PIL.Image.new("RGBa", (3 * side, 3 * side))
    square.paste(drawn, (side, side))
    x, y = side + (left + right) / 2, side + (top + bottom) / 2
    kept = x - half, y - half, x + half, y + half
    return np.array(square.resize((SIDE_PX, SIDE_PX), PIL.Image.Resampling.BOX, kept).convert("RGBA"))


def save_pictures(pictures: Pictures, file: BinaryIO) -> None:
    names = json.dumps([(each.code, each.name, each.keywords) for each in pictures.concepts])
    np.savez_compressed(
        file, concepts=names, concept=pictures.concept, vendor=pictures.vendor, pixels=pictures.pixels
    )


def load_pictures(file: Path) -> Pictures:
    with np.load(file) as found:
        names = json.loads(str(found["concepts"]))
        shown = [Concept(code, name, tuple(keywords)) for code, name, keywords in names]
        return Pictures(shown, found["concept"], found["vendor"], found["pixels"])
