"""An opened file of embeddings, whatever its format: rows that are mapped into memory, and their records."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sds_clip.models.errors import VectorsError
from sds_clip.models.vectors.about import About

Row = tuple[str, bytes]
"""What is written for an image: path and sha256 as JSON, and the numbers of its embedding."""


class Records(ABC):
    """The paths and the hashes of a file's rows."""

    @abstractmethod
    def paths(self, rows: Sequence[int]) -> list[str]:
        """Return the paths of some rows."""

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield path and SHA-256 of every row."""


class Vectors:
    """A file of embeddings, mapped into memory: one row for each image."""

    def __init__(self, path: Path, about: About, blocks: Sequence[np.ndarray], records: Records) -> None:
        self.path, self.about, self.blocks, self.records = path, about, blocks, records
        self._starts = list(accumulate(map(len, blocks), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def row(self, index: int) -> np.ndarray:
        block = bisect_right(self._starts, index) - 1
        return np.asarray(self.blocks[block][index - self._starts[block]])


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Write what a `.npy` begins with."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def map_array(path: Path) -> np.ndarray:
    """Map a `.npy` into memory. Raises VectorsError."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise VectorsError(f"{path} is not a whole NumPy array; embed the images again.") from error
