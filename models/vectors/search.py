"""Exact search: the rows of a file that are closest to a text or an image."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from sds_clip.models.errors import VectorsError
from sds_clip.models.vectors.mapped import Vectors

_ROWS_AT_ONCE = 65_536
_HALF_ROWS_AT_ONCE = 4_096
"""float16 has no product of its own on a CPU. A block that fits into its cache is converted first."""
_MARGIN = 1e-4
"""More than the error of a product of two vectors of length 1 in float32."""


@dataclass(frozen=True)
class Hit:
    """A row that was found, and its cosine with the query."""

    row: int
    path: str
    score: float


def search(vectors: Vectors, query: Float[np.ndarray, "d"], top_k: int) -> list[Hit]:
    """Return the `top_k` rows of the highest cosine, the best first. Of equal ones, earlier rows come first.

    Every row is compared. What may be among the best by float32 is computed again in float64, so that neither the
    order nor a score depends on how a product is divided over threads.

    Raises:
        VectorsError: the query has another length than the rows, or a number is not finite.
    """
    if query.shape != (vectors.about.dimensions,):
        raise VectorsError(
            f"{vectors.path} has rows of {vectors.about.dimensions} numbers, but the query has {len(query)}; "
            "name the model that made the file."
        )
    coarse = np.concatenate([*_products(vectors, query.astype(np.float32)), np.empty(0, np.float32)])
    if not np.isfinite(coarse).all():
        raise VectorsError(f"{vectors.path} has numbers that are not finite; embed the images again.")
    top_k = min(top_k, len(coarse))
    if not top_k:
        return []
    least = np.partition(coarse, -top_k)[-top_k]
    rows = np.flatnonzero(coarse >= least - _MARGIN)
    exact = query.astype(np.float64)
    scores = np.array([float((vectors.row(row).astype(np.float64) * exact).sum()) for row in rows.tolist()])
    best = np.lexsort((rows, -scores))[:top_k]
    paths = vectors.records.paths(rows[best].tolist())
    return [
        Hit(row, path, score)
        for row, path, score in zip(rows[best].tolist(), paths, scores[best].tolist(), strict=True)
    ]


def _products(vectors: Vectors, query: Float32[np.ndarray, "d"]) -> Iterator[Float32[np.ndarray, "n"]]:
    for block in vectors.blocks:
        at_once = _ROWS_AT_ONCE if block.dtype == np.float32 else _HALF_ROWS_AT_ONCE
        for start in range(0, len(block), at_once):
            yield np.asarray(block[start : start + at_once], np.float32) @ query
