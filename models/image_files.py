"""What an image file says of itself before anything is decoded: format, size, completeness, orientation.

Of a JPEG or PNG the decoder then gets only the parts that make the pixels. Metadata (colour profiles,
comments, compressed text, thumbnails, indexes of further frames) stays away from it, so none of it can cost
memory or time, warn, or be parsed wrongly. Every loop over parts of a file is capped.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from models.image_errors import ImageCorrupt, ImageFormat, ImageTruncated

Format = Literal["JPEG", "PNG", "WEBP", "GIF"]

# Far above what cameras and editors write; a file over it is made to keep a parser busy.
MAX_PARTS = 65_536
MAX_JPEG_SEGMENTS = 4_096


@dataclass(frozen=True)
class ImageFile:
    """A file whose container is whole. `data` is what the decoder gets."""

    format: Format
    width: int
    height: int
    data: bytes
    orientation: int = 1
    passes: int = 1
    """How often the decoder goes over all pixels: a progressive JPEG's scans, and at least 2 for one."""


def read_image_file(data: bytes) -> ImageFile:
    """Find the format by content and read the file's own description of itself.

    Raises: ImageFormat, ImageTruncated, ImageCorrupt.
    """
    for magic, read in _READERS:
        if magic.match(data):
            try:
                file = read(data)
            except (struct.error, IndexError):
                raise ImageTruncated from None
            if not (file.width and file.height):
                raise ImageCorrupt
            return file
    raise ImageFormat(_guess(data))


def orientation_of(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or the block is broken."""
    exif = exif.removeprefix(b"Exif\0\0")
    endian = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if endian is None:
        return 1
    try:
        (start,) = struct.unpack_from(endian + "L", exif, 4)
        (count,) = struct.unpack_from(endian + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(endian + "HHL", exif, entry)
            if tag == 0x0112:
                integer = {1: "B", 3: "H", 4: "L"}.get(kind) if length == 1 else None
                (value,) = struct.unpack_from(endian + integer, exif, entry + 8) if integer else (1,)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


# Not a stuffed zero, not padding, and not one of the restart markers, of which a scan may have any number.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_FIRST_WITH_LENGTH = 0xC0
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset([0xC2, 0xC6, 0xCA, 0xCE])
# Frame, Huffman, arithmetic and quantisation tables, restart interval; JFIF and Adobe name the colours.
_MAKES_PIXELS = _SOF | {0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE}
_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1


def _jpeg(data: bytes) -> ImageFile:
    """ITU-T T.81 annex B: segments up to the first scan. Of an MPO this is the first frame."""
    kept = [b"\xff\xd8"]
    frame: bytes = b""
    exif: bytes | None = None
    progressive = False
    position = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        marker, position = _next_marker(data, position)
        if marker < _FIRST_WITH_LENGTH:
            continue
        if marker in (_SOI, _EOI):
            raise ImageCorrupt
        end = _segment_end(data, position)
        segment = data[position:end]
        if marker == _SOS:
            if not frame:
                raise ImageCorrupt
            height, width, components = struct.unpack_from(">HHB", frame, 3)
            single_scan = not progressive and segment[2] >= components
            passes = 1 if single_scan else max(2, _count_scans(data, end))
            body = b"".join([*kept, b"\xff\xda", data[position:]])
            return ImageFile("JPEG", width, height, body, orientation_of(exif or b""), passes)
        if marker in _SOF:
            if frame:
                raise ImageCorrupt
            frame, progressive = segment, marker in _PROGRESSIVE
        if marker in _MAKES_PIXELS:
            kept.append(bytes([0xFF, marker]) + segment)
        elif marker == _APP1 and exif is None and segment[2:8] == b"Exif\0\0":
            exif = segment[2:]
        position = end
    raise ImageCorrupt


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    found = _MARKER.search(data, position)
    if found is None:
        raise ImageTruncated
    return found[1][0], found.end()


def _segment_end(data: bytes, position: int) -> int:
    (length,) = struct.unpack_from(">H", data, position)
    if length < 2:
        raise ImageCorrupt
    if position + length > len(data):
        raise ImageTruncated
    return position + int(length)


def _count_scans(data: bytes, position: int) -> int:
    """Scans up to the end of the image: each is a pass over all coefficients, however few bytes it has."""
    scans = 1
    for _ in range(MAX_JPEG_SEGMENTS):
        marker, position = _next_marker(data, position)
        if marker == _EOI:
            return scans
        if marker < _FIRST_WITH_LENGTH:
            continue
        scans += marker == _SOS
        position = _segment_end(data, position)
    raise ImageCorrupt


def _png(data: bytes) -> ImageFile:
    """PNG (Third Edition): the chunks that make the still image, each with its checksum verified."""
    kept = [data[:8]]
    exif = b""
    position = 8
    for index in range(MAX_PARTS):
        length, kind = struct.unpack_from(">L4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ImageTruncated
        if (index == 0) != (kind == b"IHDR"):
            raise ImageCorrupt
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            chunk = data[position:end]
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise ImageCorrupt
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = data[position + 8 : end - 4]
        if kind == b"IEND":
            width, height = struct.unpack_from(">LL", kept[1], 8)
            return ImageFile("PNG", width, height, b"".join(kept), orientation_of(exif))
        position = end
    raise ImageCorrupt


def _webp(data: bytes) -> ImageFile:
    """RFC 9649: the canvas, and that every chunk is there."""
    (length,) = struct.unpack_from("<L", data, 4)
    if 8 + length > len(data):
        raise ImageTruncated
    data = data[: 8 + length]
    width, height = _webp_size(data)
    exif = b""
    position = 12
    for _ in range(MAX_PARTS):
        if position >= len(data):
            return ImageFile("WEBP", width, height, data, orientation_of(exif))
        kind, length = struct.unpack_from("<4sL", data, position)
        end = position + 8 + length
        if end > len(data):
            raise ImageCorrupt
        if kind == b"EXIF" and not exif:
            exif = data[position + 8 : end]
        position = end + length % 2
    raise ImageCorrupt


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return (
            1 + int.from_bytes(data[24:27], "little"),
            1 + int.from_bytes(data[27:30], "little"),
        )
    if kind == b"VP8L" and data[20:21] == b"\x2f":
        (bits,) = struct.unpack_from("<L", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ImageCorrupt


def _gif(data: bytes) -> ImageFile:
    """GIF89a: everything before the first frame's pixels."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _palette_bytes(flags)
    for _ in range(MAX_PARTS):
        introducer = data[position]
        if introducer == 0x21:
            position = _after_blocks(data, position + 2)
        elif introducer == 0x2C:
            left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, position + 1)
            if not (frame_width and frame_height):
                raise ImageCorrupt
            _after_blocks(data, position + 10 + _palette_bytes(flags) + 1)
            # A frame may reach over the screen that the header gave: the picture then grows.
            return ImageFile("GIF", max(width, left + frame_width), max(height, top + frame_height), data)
        else:
            raise ImageCorrupt
    raise ImageCorrupt


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, position: int) -> int:
    """The position after a chain of sub-blocks, which ends with an empty one."""
    for _ in range(2 * MAX_PARTS):
        length = data[position]
        position += 1 + length
        if length == 0:
            return position
    raise ImageCorrupt


def _guess(data: bytes) -> str:
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml")):
        return "This is an SVG or XML file; draw it as a JPEG, PNG, WebP or GIF."
    if start.startswith((b"<!doctype", b"<html")):
        return "This is a web page, not an image; send the image file itself."
    return "The image is not a JPEG, PNG, WebP or GIF; convert it to one of these."


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"GIF8[79]a"), _gif),
)
