"""Answers as NumPy arrays. NumPy is imported here alone, because most callers need none."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np


def embeddings(answer: Mapping[str, Any]) -> np.ndarray:
    """The vectors of an answer of `embed` as float32, of the shape (items, dimensions).

    The row of an image that could not be read (`on_error="skip"`) is NaN. Both encoding formats are read; base64 is the
    faster one.
    """
    import numpy as np

    found = np.full((len(answer["results"]), answer["dimensions"]), np.nan, dtype=np.float32)
    for row, result in zip(found, answer["results"], strict=True):
        if "error" not in result:
            vector = result["embedding"]
            row[:] = np.frombuffer(base64.b64decode(vector), "<f4") if isinstance(vector, str) else vector
    return found


def scores(
    answer: Mapping[str, Any], field: Literal["scores", "logits", "probabilities"] = "scores"
) -> np.ndarray:
    """The scores in an answer of `match` as float32, of the shape (images, texts).

    `probabilities` are those over the texts, so that each row is an image's. The row of an image that could not be read
    (`on_error="skip"`) is NaN. If none could be read, there are no columns.
    """
    import numpy as np

    results = answer["results"]
    texts = max((len(result.get(field, ())) for result in results), default=0)
    found = np.full((len(results), texts), np.nan, dtype=np.float32)
    for row, result in zip(found, results, strict=True):
        if "error" not in result:
            row[:] = result[field]
    return found
