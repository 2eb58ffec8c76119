"""Bounds what a JSON body holds before any object is built from it.

A parser builds an object for each value, and no other thread runs meanwhile. A million unknown fields would hold up
every other caller for half a minute. The raw bytes tell what will be built: outside of strings, each value has one of
the signs `[{,:` before it. The parser itself limits how deeply lists and objects are nested.
"""

import re
from dataclasses import dataclass

from sds_clip.app.errors import BodyTooComplex

SIGNS = (b"[", b"{", b",", b":")
BACKSLASH = ord("\\")
# A body of this size takes the parser at most some 25 ms, whatever is in its strings.
SMALL_BYTES = 4 * 2**20
MAX_OTHER_BYTES = 2**20
"""Of numbers, spaces and signs: whatever is outside of strings."""
MAX_TEXT_BYTES = 8 * 2**20
"""Of all strings that may be texts, together."""
PART_BYTES = 2**20
# An escape takes the parser as long as a hundred plain characters. Some clients escape the slashes of base64, which are
# one character in 64.
MAX_ESCAPES_IN_PART = PART_BYTES // 16
IMAGE_FIELDS = frozenset(
    [b"images", b"input", b"inputs", b"content", b"image", b"image_url", b"url", b"text", b"type", b"detail"]
)
"""The fields that hold images, or that an item has before which, in the same list, an image may be a string."""
MAX_NAME_BYTES = max(map(len, IMAGE_FIELDS))
_NAME_ENDS = re.compile(rb"[ \t\r\n]*:")


@dataclass(frozen=True)
class JsonBounds:
    """How many values a body may have, how long a string of it may be that is not an image, and whether images may be.

    The length is that of the longest text as JSON has it, in which each character may take 12 bytes.
    """

    values: int
    string_bytes: int
    images: bool = True

    def check(self, body: bytes) -> None:
        """Raises BodyTooComplex. Whether the body is JSON is left to the parser."""
        if len(body) <= SMALL_BYTES and sum(map(body.count, SIGNS)) <= self.values:
            return  # even if all the signs are outside of strings
        is_ascii = body.isascii()
        values = others = texts = end = 0
        field = b""
        while end < len(body):
            quote = body.find(b'"', end)
            start = quote if quote >= 0 else len(body)
            others += start - end
            if others > MAX_OTHER_BYTES:
                raise BodyTooComplex(
                    f"The body has more than {MAX_OTHER_BYTES} bytes outside of strings; send shorter numbers and "
                    "fewer spaces, or several requests."
                )
            signs = sum(body.count(sign, end, start) for sign in SIGNS)
            end, quotes = _end_of_string(body, start, self.string_bytes)
            values += max(signs, quote >= 0) + quotes  # what takes as long as a value counts as one
            if values > self.values:
                raise BodyTooComplex(
                    f"The body has more than {self.values} fields, items and escaped quotation marks; send several "
                    "requests."
                )
            is_name = _NAME_ENDS.match(body, end) is not None
            if is_name:
                field = body[start + 1 : min(end - 1, start + 2 + MAX_NAME_BYTES)]
            if end - start <= self.string_bytes:
                texts += end - start
            elif is_name or not self.images or field not in IMAGE_FIELDS:
                raise BodyTooComplex(
                    "The body has a string that is longer than a text may be, and is not where an image may be; send "
                    "a shorter one."
                )
            elif not (is_ascii or body[start:end].isascii()) or _is_much_escaped(body, start, end):
                # It can only be an image in base64. Other characters would also take up to four bytes each in memory.
                raise BodyTooComplex(
                    "The body has a string that is longer than a text may be, and is not base64; send shorter texts, "
                    "and images as base64 without escapes."
                )
            if texts > MAX_TEXT_BYTES:
                raise BodyTooComplex(
                    f"The texts of the body have more than {MAX_TEXT_BYTES} bytes; send several requests."
                )


def _end_of_string(body: bytes, start: int, most: int) -> tuple[int, int]:
    """The place behind the string that begins at `start`, or the end of the body, and the escaped quotes in it.

    With more than `most` of them it is too long in any case, and followed no further.
    """
    inside = start + 1
    quotes = 0
    while (quote := body.find(b'"', inside)) >= 0 and quotes <= most:
        # With more backslashes than the last ones here, the string has too many escapes, wherever it ends.
        last = max(inside, quote - max(most, 2 * MAX_ESCAPES_IN_PART) - 2)
        if body[quote - 1] != BACKSLASH or _is_whole_pairs(body[last:quote]):
            return quote + 1, quotes
        quotes += 1
        inside = quote + 1
    return len(body), quotes


def _is_whole_pairs(text: bytes) -> bool:
    """Whether the backslashes at its end escape each other, and not what follows."""
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 0


def _is_much_escaped(body: bytes, start: int, end: int) -> bool:
    if body.find(b"\\", start, end) < 0:
        return False
    parts = range(start, end, PART_BYTES)  # so that a string of nothing but escapes is known early
    return (
        any(body.count(b"\\", at, min(end, at + PART_BYTES)) > MAX_ESCAPES_IN_PART for at in parts)
        or body.find(b"\\u", start, end) >= 0
    )
