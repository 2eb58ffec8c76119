"""Small pictures for pages of HTML that need no other file."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from sds_clip.models.images.ref import Box

SIDE = 320
"""The most pixels on the longer side of a picture."""


@dataclass(frozen=True)
class Picture:
    """A WebP as a data URI, without any metadata of its file, and its size in pixels."""

    uri: str
    width: int
    height: int


def cropped(image: Image.Image, box: Box) -> Image.Image:
    """Return the part of a box that is inside the image, or the whole image if the box lies outside."""
    left, top = max(0, box[0]), max(0, box[1])
    right, bottom = min(image.width, box[0] + box[2]), min(image.height, box[1] + box[3])
    return image.crop((left, top, right, bottom)) if left < right and top < bottom else image


def thumbnail(image: Image.Image) -> Picture:
    """Return a picture of the image, which is made small itself."""
    image.thumbnail((SIDE, SIDE))
    image.info.clear()  # some versions of Pillow also write a colour profile
    encoded = io.BytesIO()
    image.save(encoded, format="WEBP", quality=75)
    uri = f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    return Picture(uri, image.width, image.height)
