"""Benchmark images made small enough to stand inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

from models.evaluation.results import ImageRegion
from models.images import ImageError, decode_image

SIDE = 320
"""The longer side of a picture in pixels, at most."""


@dataclass(frozen=True)
class Picture:
    """A WebP as a data URI, without any metadata of its file, and its size in pixels."""

    uri: str
    width: int
    height: int


def pictures_of(regions: Iterable[ImageRegion]) -> dict[ImageRegion, Picture]:
    """A picture of each region, cut to its box; a file that cannot be read (any more) has none."""
    found = ((region, _picture(region)) for region in dict.fromkeys(regions))
    return {region: picture for region, picture in found if picture is not None}


def _picture(region: ImageRegion) -> Picture | None:
    try:
        image = decode_image(region.path.read_bytes(), orient=False)
    except (OSError, ImageError):
        return None
    return _encoded(image.crop(_corners(region.box, image)) if region.box else image)


def _corners(box: tuple[int, int, int, int], image: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right and bottom inside the image; the whole image where the box lies outside."""
    left, top = max(0, box[0]), max(0, box[1])
    right, bottom = min(image.width, box[0] + box[2]), min(image.height, box[1] + box[3])
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, *image.size)


def _encoded(image: Image.Image) -> Picture:
    image.thumbnail((SIDE, SIDE))
    image.info.clear()  # some versions of Pillow write a colour profile along
    encoded = io.BytesIO()
    image.save(encoded, format="WEBP", quality=75)
    uri = f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    return Picture(uri, image.width, image.height)
