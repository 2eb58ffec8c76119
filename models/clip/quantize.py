"""Embeddings in fewer bytes: int8 and uint8 by a range of the version, or one bit for each coordinate.

The reasons are in docs/decisions/0063-cohere-and-quantised-embeddings.md.
"""

import numpy as np
from jaxtyping import Float32, Int8, UInt8

from sds_clip.models.clip.golden import Golden

MARGIN = 1.25
"""Coordinates of pictures and captions exceed those of the golden inputs, which are few."""


def range_of(golden: Golden, dimensions: int | None = None) -> float:
    """The magnitude of a coordinate that becomes 127, of the whole embedding or of its first `dimensions`.

    It is rounded, so that golden embeddings that another machine has computed give the same.
    """
    rows = np.concatenate([golden.image_features.numpy(), golden.text_features.numpy()])[:, :dimensions]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return round(MARGIN * float(np.abs(rows).max()), 3)


def to_int8(embeddings: Float32[np.ndarray, "n d"], value_range: float) -> Int8[np.ndarray, "n d"]:
    """code = round(127 x / value_range), at most 127 in magnitude.

    Images and texts have one range in all coordinates. So the products of codes are, but for the rounding, those of the
    embeddings times one factor.
    """
    return np.clip(np.rint(embeddings * (127 / value_range)), -127, 127).astype(np.int8)


def to_uint8(embeddings: Float32[np.ndarray, "n d"], value_range: float) -> UInt8[np.ndarray, "n d"]:
    """The int8 codes plus 128."""
    return to_int8(embeddings, value_range).view(np.uint8) ^ 0x80


def to_ubinary(embeddings: Float32[np.ndarray, "n d"]) -> UInt8[np.ndarray, "n bytes"]:
    """A bit for each coordinate, 1 if it is positive. The first is the highest bit of the first byte."""
    return np.packbits(embeddings > 0, axis=1)


def to_binary(embeddings: Float32[np.ndarray, "n d"]) -> Int8[np.ndarray, "n bytes"]:
    """The bytes of `to_ubinary` minus 128."""
    return (to_ubinary(embeddings) ^ 0x80).view(np.int8)
