"""From the bytes of an image file to RGB pixels, within limits, or an error that says what to do."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from models.image_errors import (
    ImageCorrupt,
    ImageEmpty,
    ImageError,
    ImageTooComplex,
    ImageTooLarge,
    ImageTooNarrow,
    ImageTruncated,
)
from models.image_files import ImageFile, read_image_file

__all__ = ["ImageError", "ImageLimits", "decode_bytes", "decode_file", "decode_image", "open_image"]

# PIL warns over this size, and a warning cannot be silenced in one thread alone; sizes are checked before PIL
# sees a file, so below it PIL's own limit never speaks.
PIL_WARNS_OVER_PIXELS = 89_478_485
# Passes times pixels, in units of max_pixels: the largest image allowed may have as many scans.
MAX_PASSES = 16

# The most memory that decoding takes, in bytes a pixel, over all modes of a format, from the decoder's own buffers
# to RGB, turned upright and resized. Measured, with Pillow 13.0, by `python -m bench.decode_memory --formats`.
_BYTES_PER_PIXEL = {"JPEG": 8, "PNG": 8, "GIF": 8, "WEBP": 16}
_PROGRESSIVE_BYTES_PER_PIXEL = 12
# The file, its copy without metadata, and the decoder's own.
_COPIES_OF_FILE = 3

# Chosen here by content: PIL.Image.open would add its size warning and its reading of MPO indexes.
_DECODERS: dict[str, Callable[[IO[bytes]], Image.Image]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageLimits:
    """How large an image may be, checked before it is decoded. `max_aspect` is long side over short side."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 64_000_000
    max_side: int = 32_768
    max_aspect: float = 50.0

    def __post_init__(self) -> None:
        if self.max_pixels > PIL_WARNS_OVER_PIXELS:
            raise ValueError(f"max_pixels is {self.max_pixels}; {PIL_WARNS_OVER_PIXELS} is the most allowed.")


def decode_image(data: bytes, limits: ImageLimits = ImageLimits(), *, orient: bool = True) -> Image.Image:
    """Decode a JPEG (or MPO), PNG, WebP or GIF into RGB; of several frames the first.

    `orient=True` (serving) turns the image as its EXIF says, and scales 16-bit grey to 8 bit.
    `orient=False` (evaluation) gives the pixels of `PIL.Image.open(...).convert("RGB")`, nothing else.
    A truncated file is refused; but of a JPEG that was cut and given an end marker again, nothing tells.

    Raises:
        ImageError: empty, of another format, truncated, damaged, or over a limit.
    """
    return decode_file(open_image(data, limits), orient=orient)


def open_image(data: bytes, limits: ImageLimits) -> ImageFile:
    """What the file says of itself, within limits; nothing is decoded.

    Raises: ImageError, as `decode_image`.
    """
    if not data:
        raise ImageEmpty("The image has no bytes; send the file's content.")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"The image file has {len(data)} bytes; {limits.max_bytes} at most are allowed. Make it smaller."
        )
    file = read_image_file(data)
    _check_size(file, limits)
    return file


def decode_bytes(file: ImageFile, *, max_side: int) -> int:
    """An upper bound of the memory that decoding takes, and then resizing to `max_side` on the shorter side."""
    per_pixel = _PROGRESSIVE_BYTES_PER_PIXEL if file.passes > 1 else _BYTES_PER_PIXEL[file.format]
    aspect = max(file.width, file.height) / min(file.width, file.height)
    # Narrow pictures grow: first along one side and then along the other, 4 bytes a pixel.
    resized = int(2 * 4 * max_side**2 * aspect)
    return per_pixel * file.width * file.height + resized + _COPIES_OF_FILE * len(file.data)


def decode_file(file: ImageFile, *, orient: bool = True) -> Image.Image:
    """The second half of `decode_image`.

    Raises: ImageTruncated, ImageCorrupt.
    """
    image = _decoded(file)
    if orient:
        image = _grey_to_8_bit(image)
    if image.mode != "RGB":
        # A transparent colour changes no pixel, and PIL's translation of it can warn or fail.
        image.info.pop("transparency", None)
        image = image.convert("RGB")
    if orient and file.orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[file.orientation])
    return image


def _check_size(file: ImageFile, limits: ImageLimits) -> None:
    width, height = file.width, file.height
    pixels = width * height
    if pixels > limits.max_pixels or max(width, height) > limits.max_side:
        raise ImageTooLarge(
            f"The image is {width} x {height}; at most {limits.max_pixels} pixels and {limits.max_side} "
            "on a side are allowed. Make it smaller."
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise ImageTooNarrow(
            f"The image is {width} x {height}; one side may be at most {limits.max_aspect:g} times the "
            "other. Crop it."
        )
    if file.passes * pixels > MAX_PASSES * limits.max_pixels:
        raise ImageTooComplex(
            f"The JPEG has {file.passes} scans, too many for its size; save it as a baseline JPEG."
        )


def _decoded(file: ImageFile) -> Image.Image:
    try:
        image = _DECODERS[file.format](io.BytesIO(file.data))
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        if "memory" in str(error):
            raise MemoryError from None
        # PIL's plugins raise whatever their parsing runs into (OSError, SyntaxError, struct.error, KeyError,
        # ...) and promise no closed set; their text is looked at here, and never shown.
        raise (ImageTruncated() if "truncated" in str(error) else ImageCorrupt()) from None
    if image.size != (file.width, file.height):
        raise ImageCorrupt
    return image


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Keep the high byte of 16-bit grey; PIL's own conversion would clip it, and most of it to white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
