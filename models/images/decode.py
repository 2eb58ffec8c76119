"""Turn the bytes of an image file into RGB pixels, within limits, or into an ImageError that says what to do.

Pillow reads the files (decision 32); its own messages about a damaged file never reach a caller. Three things
come before Pillow: the format, by content and never by name; the metadata of JPEG and PNG, which Pillow does not
get; and the number of scans in a JPEG, which Pillow does not limit.
"""

import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import IO, Literal

import numpy as np
from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from sds_clip.models.errors import ModelError
from sds_clip.models.images.files import MAX_IMAGE_BYTES

Format = Literal["JPEG", "PNG", "WEBP", "GIF"]

# Only these four modules of Pillow ever see a file. Pillow's own dispatch, `Image.open`, would also treat a
# JPEG with several frames as an MPO and read its index of frames, although only the first frame is wanted.
_FORMATS: tuple[tuple[re.Pattern[bytes], Format, Callable[[IO[bytes]], Image.Image]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG", JpegImagePlugin.JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", PngImagePlugin.PngImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WEBP", WebPImagePlugin.WebPImageFile),
    (re.compile(rb"GIF8[79]a"), "GIF", GifImagePlugin.GifImageFile),
)

# Pillow warns above this size and refuses twice this size. The warning is turned into an error, so that both
# are refused. Our own limits are lower.
MAX_PIXELS = 89_478_485
warnings.simplefilter("error", Image.DecompressionBombWarning)
# Broken metadata is no reason to refuse an image. Its warnings quote the file, so Python's registry of
# warnings would keep each of them for ever.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# Limit on passes times pixels, in units of max_pixels: an image of max_pixels may have this many scans.
MAX_PASSES = 16
# Limit on reads of one file. A file of 20 MiB written by an editor takes some ten thousand.
MAX_READS = 200_000
# Cameras and editors write a few dozen. A file with more than this is made to keep a parser busy.
MAX_JPEG_SEGMENTS = 4_096
MAX_PNG_CHUNKS = 65_536

# The most memory that decoding takes, in bytes per pixel, over all modes of a format: from the decoder's own
# buffers to RGB, turned upright and resized. Measured with Pillow 13.0 by `python -m bench.decode_memory
# --formats`.
_BYTES_PER_PIXEL = {"JPEG": 8, "PNG": 8, "GIF": 8, "WEBP": 16}
# Of a progressive JPEG, the coefficients of the whole picture, and beside them the pixels, which may be fewer.
_BYTES_PER_COEFFICIENTS, _BYTES_BESIDE_COEFFICIENTS = 8, 4
# The file itself, and the copies that a decoder makes of it.
_COPIES_OF_FILE = 3

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ModelError):
    """An image cannot be used; the code says why, and the message says what to do."""

    code = "invalid_image"


class ImageEmpty(ImageError):
    """The image has no bytes."""

    code = "image_empty"


class ImageFormat(ImageError):
    """The content of the image is not JPEG, PNG, WebP or GIF, whatever its name says."""

    code = "image_format"


class ImageTruncated(ImageError):
    """The image file ends too early; send the whole file."""

    code = "image_truncated"

    def __init__(self) -> None:
        super().__init__("The image file ends too early; send the whole file.")


class ImageCorrupt(ImageError):
    """The image file is damaged, or of a kind that cannot be decoded; save it as an ordinary JPEG or PNG."""

    code = "image_corrupt"

    def __init__(self) -> None:
        super().__init__(
            "The image file is damaged or of an unusual kind; save it again as an ordinary JPEG or PNG."
        )


class ImageTooLarge(ImageError):
    """The image has more bytes or pixels, or a longer side, than the limits allow; make it smaller."""

    code = "image_too_large"


class ImageTooNarrow(ImageError):
    """The image is too long and narrow; crop it."""

    code = "image_too_narrow"


class ImageTooComplex(ImageError):
    """The image costs far more to decode than its size suggests; save it as a baseline JPEG."""

    code = "image_too_complex"


@dataclass(frozen=True)
class ImageLimits:
    """How large an image may be, checked before decoding. `max_aspect` is long side over short side."""

    max_bytes: int = MAX_IMAGE_BYTES
    max_pixels: int = 64_000_000
    max_side: int = 32_768
    max_aspect: float = 50.0

    def __post_init__(self) -> None:
        if self.max_pixels > MAX_PIXELS:
            raise ValueError(f"max_pixels is {self.max_pixels}; at most {MAX_PIXELS} is allowed.")


class _BoundedReads(io.BytesIO):
    """A file in memory that can be read only MAX_READS times.

    Pillow visits a file's parts one by one in Python and limits neither their number nor its time.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ImageCorrupt
        return super().read(size)


@dataclass(eq=False)
class ImageFile:
    """An image file whose header was read. The image is decoded, and taken out of it, by `decode_file`."""

    data: bytes
    format: Format
    image: Image.Image | None
    width: int
    height: int
    passes: int = 1
    """How often the decoder visits all pixels: the scans of a JPEG, at least 2 for a progressive one."""


def decode_image(
    data: bytes, limits: ImageLimits = ImageLimits(), *, orient: bool = True, least_side: int = 0
) -> Image.Image:
    """Decode a JPEG (or MPO), PNG, WebP or GIF into RGB. Of several frames the first is used.

    - `orient=True` (serving) rotates the image as its EXIF says, and scales 16-bit grey to 8 bit.
    - `orient=False` (evaluation) gives the pixels of `PIL.Image.open(...).convert("RGB")`, nothing else.
    - `least_side` (serving, see `open_image`) lets a large JPEG become smaller.

    A truncated file is refused, but a JPEG that was cut and given a new end marker cannot be detected.

    Raises:
        ImageError: empty, of another format, truncated, damaged, or over a limit.
    """
    return decode_file(open_image(data, limits, least_side=least_side), orient=orient)


def open_image(data: bytes, limits: ImageLimits, *, least_side: int = 0) -> ImageFile:
    """Read an image's header and check it against the limits, without decoding.

    With `least_side`, a JPEG will be decoded at a half, a quarter or an eighth of its size if its shorter side then
    still has so many pixels, and both sides a whole number. Otherwise a pixel would be cut, and the model would see
    everything moved by a part of one of its own (decision 93).

    Raises: ImageError, as `decode_image`.
    """
    if not data:
        raise ImageEmpty("The image is empty; send the file's content.")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"The image file has {len(data)} bytes; at most {limits.max_bytes} are allowed. Make it smaller."
        )
    file = read_header(data)
    _check_size(file, limits)
    if least_side and file.image is not None:
        width, height = file.width, file.height
        for by in (8, 4, 2):
            if width % by == height % by == 0 and min(width, height) >= by * least_side:
                file.image.draft(None, (width // by, height // by))  # Pillow leaves other formats as they are
                break
    return file


def read_header(data: bytes) -> ImageFile:
    """Read an image's header without checking the limits on its size.

    Raises: ImageFormat, ImageTruncated, ImageCorrupt, and ImageTooLarge for a size that Pillow does not open.
    """
    for magic, format, plugin in _FORMATS:
        if magic.match(data):
            try:
                pixels, passes = _pixels_of(data, format)
                image = plugin(_BoundedReads(pixels))
                return ImageFile(pixels, format, image, image.width, image.height, passes)
            except Exception as error:
                raise _translated(error, data, format) from None
    raise ImageFormat(_guess(data))


def decoding_size_bytes(file: ImageFile, *, max_side: int) -> int:
    """Return an upper bound on the memory for decoding and then resizing the shorter side to `max_side`."""
    assert file.image is not None, "The file is not decoded yet."
    size_bytes = _BYTES_PER_PIXEL[file.format] * math.prod(file.image.size)
    if file.passes > 1:
        coefficients_bytes = _BYTES_PER_COEFFICIENTS * file.width * file.height
        size_bytes = coefficients_bytes + _BYTES_BESIDE_COEFFICIENTS * math.prod(file.image.size)
    aspect = max(file.width, file.height) / min(file.width, file.height)
    # Resizing works along one side and then the other, with 4 bytes per pixel; a narrow image can grow.
    resized = int(2 * 4 * max_side**2 * aspect)
    return size_bytes + resized + _COPIES_OF_FILE * len(file.data)


def decode_file(file: ImageFile, *, orient: bool = True) -> Image.Image:
    """Decode an opened file, as `decode_image` does. Call it once per file.

    Raises: ImageTruncated, ImageCorrupt.
    """
    # Taken out of the file, so that the decoded image is freed as soon as it is converted.
    image, file.image = file.image, None
    assert image is not None, "A file is decoded once."
    size = image.size
    try:
        image.load()
    except Exception as error:
        raise _translated(error, file.data, file.format) from None
    if image.size != size:
        raise ImageCorrupt
    transpose = _UPRIGHT.get(_orientation(image)) if orient else None
    if orient:
        image = _grey_to_8_bit(image)
    if image.mode != "RGB":
        # A transparent colour changes no pixel, and Pillow's conversion of it can warn or fail.
        image.info.pop("transparency", None)
        image = image.convert("RGB")
    return image if transpose is None else image.transpose(transpose)


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


def _translated(error: Exception, data: bytes, format: Format) -> Exception:
    """Turn an exception of a Pillow plugin, which may be of almost any class, into an ImageError."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, MemoryError) or "memory" in str(error):
        return MemoryError()
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageTooLarge(f"The image has more than {MAX_PIXELS} pixels. Make it smaller.")
    return ImageTruncated() if "truncated" in str(error) or _is_cut(data, format) else ImageCorrupt()


def _is_cut(data: bytes, format: Format) -> bool:
    if format == "WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xae\x42\x60\x82", "GIF": b";"}[format]
    return not data.endswith(end)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, or 1 (upright) if there is none or the block is broken."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) else 1


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Keep the high byte of 16-bit grey. Pillow's own conversion would clip it, most of it to white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))


def _pixels_of(data: bytes, format: Format) -> tuple[bytes, int]:
    """Return the parts of a file that make its picture, and the passes that decoding takes.

    Pillow inflates every text and colour profile of a PNG and joins every Exif block of a JPEG, which can take
    minutes and hundreds of megabytes. None of these changes a pixel.
    """
    if format == "PNG":
        return _png_pixels(data), 1
    if format == "JPEG":
        return _jpeg_pixels(data)
    return data, 1


# Any marker but a stuffed zero, padding, and the restart markers, of which a scan may have any number.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset([0xC2, 0xC6, 0xCA, 0xCE])
# Frame, Huffman, arithmetic and quantisation tables, restart interval; JFIF and Adobe name the colours.
_MAKES_PIXELS = _FRAMES | {0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE}
_FIRST_WITH_LENGTH = 0xC0
_END_OF_IMAGE, _START_OF_SCAN, _APP1 = 0xD9, 0xDA, 0xE1


def _jpeg_pixels(data: bytes) -> tuple[bytes, int]:
    """ITU-T T.81 annex B: the segments up to the first scan. Of an MPO this is the first frame."""
    kept = [data[:2]]
    components, progressive, has_exif = 0, False, False
    for marker, start, end in _jpeg_segments(data, 2):
        if marker == _END_OF_IMAGE:
            break
        if marker == _START_OF_SCAN:
            only_scan = not progressive and data[start + 2] >= components
            passes = 1 if only_scan else max(2, 1 + _count_scans(data, end))
            return b"".join([*kept, b"\xff\xda", data[start:]]), passes
        if marker in _FRAMES:
            components, progressive = data[start + 7], marker in _PROGRESSIVE
        is_exif = marker == _APP1 and not has_exif and data[start + 2 : start + 8] == b"Exif\0\0"
        has_exif = has_exif or is_exif
        if marker in _MAKES_PIXELS or is_exif:
            kept.append(bytes([0xFF, marker]) + data[start:end])
    raise ImageCorrupt


def _count_scans(data: bytes, position: int) -> int:
    """Count the scans up to the end of the image: each is a pass over all pixels, however few bytes it has."""
    markers = (marker for marker, _, _ in _jpeg_segments(data, position))
    return sum(marker == _START_OF_SCAN for marker in takewhile(lambda each: each != _END_OF_IMAGE, markers))


def _jpeg_segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment from a position on, and where what follows it begins and ends."""
    for _ in range(MAX_JPEG_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None:
            raise ImageTruncated
        marker, position = found[1][0], found.end()
        start = position
        if marker >= _FIRST_WITH_LENGTH and marker != _END_OF_IMAGE:
            position += max(2, int(struct.unpack_from(">H", data, start)[0]))
        yield marker, start, position
    raise ImageCorrupt


def _png_pixels(data: bytes) -> bytes:
    """PNG (Third Edition): the chunks of the still image and its orientation, with their checksums verified."""
    kept = [data[:8]]
    position = 8
    for _ in range(MAX_PNG_CHUNKS):
        length, kind = struct.unpack_from(">L4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ImageTruncated
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"eXIf"):
            chunk = data[position:end]
            # The decoder does not look at the checksums of the pixel data.
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise ImageCorrupt
            kept.append(chunk)
        if kind == b"IEND":
            return b"".join(kept)
        position = end
    raise ImageCorrupt


def _guess(data: bytes) -> str:
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml")):
        return "This is an SVG or XML file, not an image of pixels; convert it to JPEG, PNG, WebP or GIF."
    if start.startswith((b"<!doctype", b"<html")):
        return "This is a web page, not an image; send the image file itself."
    return "The image is not a JPEG, PNG, WebP or GIF; convert it to one of these."
