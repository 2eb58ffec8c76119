"""The folder benchmark's searches: files of random rows of length 1, in a warm page cache."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from sds_clip.models.vectors.about import About
from sds_clip.models.vectors.files import open_vectors, write_vectors
from sds_clip.models.vectors.mapped import Row
from sds_clip.models.vectors.search import search

DIMENSIONS = 512
TOP_K = 20
SEARCHES = 7


@dataclass(frozen=True)
class Searched:
    """Seconds from opening a file to the paths of the best rows."""

    rows: int
    suffix: str
    first_s: float
    seconds: Sequence[float]
    copied_s: float | None

    def cells(self) -> list[str]:
        ms = [1000 * each for each in self.seconds]
        spread = f"{median(ms):.0f} ({min(ms):.0f} to {max(ms):.0f})"
        copied = "" if self.copied_s is None else f"{self.copied_s:.1f}"
        return [f"{self.rows:,}", self.suffix, spread, f"{1000 * self.first_s:.0f}", copied]


def measure_search(cache: Path, count: int, suffix: str) -> Searched:
    """Write a file, then open and search it several times. The first search follows the copy, if there is one.

    Raises RuntimeError if a row does not find itself.
    """
    folder = cache / "search"
    file = _written(folder, count, suffix)
    start = time.perf_counter()
    open_vectors(file)
    copied_s = time.perf_counter() - start
    seconds = []
    generator = np.random.default_rng(1)
    for row in generator.integers(0, count, SEARCHES + 1).tolist():
        query = np.array(open_vectors(file).row(row))
        start = time.perf_counter()
        hits = search(open_vectors(file), query, TOP_K)
        seconds.append(time.perf_counter() - start)
        if hits[0].row != row:
            raise RuntimeError(f"Row {row} of {file} was not the best for itself.")
    for left in folder.iterdir():
        left.unlink()
    return Searched(count, suffix, seconds[0], seconds[1:], copied_s if suffix == ".parquet" else None)


def _written(folder: Path, count: int, suffix: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    about = About(version="bench", dimensions=DIMENSIONS, dtype="float32", images=".")
    file = folder / f"vectors{suffix}"
    write_vectors(file, about, count, _rows(count))
    return file


def _rows(count: int) -> Iterator[Row]:
    generator = np.random.default_rng(0)
    for row in range(count):
        embedding = generator.standard_normal(DIMENSIONS, dtype=np.float32)
        yield (
            f'{{"path": "{row:08}.jpg", "sha256": "{row:064x}"}}',
            (embedding / np.linalg.norm(embedding)).tobytes(),
        )
