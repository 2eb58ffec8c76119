"""Files of embeddings: Parquet, Arrow, or a NumPy array with JSON lines beside it (docs/reference/file-formats.md)."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np

from sds_clip.models.atomic import atomic_file, write_atomic
from sds_clip.models.errors import VectorsError
from sds_clip.models.vectors.about import About
from sds_clip.models.vectors.arrow_files import open_arrow, open_parquet, write_arrow
from sds_clip.models.vectors.mapped import Records, Row, Vectors, map_array, write_header

SUFFIXES = (".parquet", ".arrow", ".npy")
ARROW_SUFFIXES = (".parquet", ".arrow")
"""Those that need pyarrow."""


def check_suffix(path: Path) -> None:
    """Raise VectorsError unless the name says which format is meant."""
    if path.suffix not in SUFFIXES:
        raise VectorsError(f"The name of {path} must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")


def open_vectors(path: Path) -> Vectors:
    """Open what `write_vectors` wrote. The rows of a Parquet file are copied beside it first, once, as an array.

    Raises VectorsError.
    """
    check_suffix(path)
    if not path.is_file():
        raise VectorsError(f"There is no file {path}; check the path, or make it with `sds-clip embed`.")
    try:
        vectors = {".npy": _open_npy, ".arrow": open_arrow, ".parquet": open_parquet}[path.suffix](path)
    except OSError as error:
        raise VectorsError(f"{path} cannot be read ({error.strerror or error}); check it.") from error
    shapes = {(*block.shape[1:], block.dtype.name) for block in vectors.blocks}
    if shapes - {(vectors.about.dimensions, vectors.about.dtype)}:
        raise VectorsError(f"{path} does not hold what it says that it holds; embed the images again.")
    return vectors


def write_vectors(path: Path, about: About, count: int, rows: Iterable[Row]) -> None:
    """Write `count` rows, each a record (path and sha256, as JSON) and an embedding. Equal input makes equal bytes.

    Each file appears whole or not at all. Raises OSError.
    """
    if path.suffix == ".npy":
        with suppress(FileNotFoundError):
            about_file(path).unlink()  # until all three are there again, there is no set of them
        with atomic_file(path) as array, atomic_file(rows_file(path)) as records:
            write_header(array, (count, about.dimensions), np.dtype(about.dtype))
            for record, embedding in rows:
                records.write(f"{record}\n".encode())
                array.write(embedding)
        write_atomic(about_file(path), about.as_json() + "\n")
    else:
        write_arrow(path, about, rows)


def rows_file(npy: Path) -> Path:
    return npy.with_suffix(".jsonl")


def about_file(npy: Path) -> Path:
    return npy.with_suffix(".about.json")


class _JsonLines(Records):
    """Records in a file of JSON lines."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __iter__(self) -> Iterator[tuple[str, str]]:
        with self._file.open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                yield record["path"], record["sha256"]

    def paths(self, rows: Sequence[int]) -> list[str]:
        found: dict[int, str] = {}
        with self._file.open("rb") as lines:
            next_row = 0
            for row in sorted(set(rows)):
                found[row] = json.loads(next(islice(lines, row - next_row, None)))["path"]
                next_row = row + 1
        return [found[row] for row in rows]


def _open_npy(path: Path) -> Vectors:
    try:
        text = about_file(path).read_bytes()
        records = rows_file(path).resolve(strict=True)
    except FileNotFoundError as error:
        raise VectorsError(
            f"{error.filename} belongs to {path} and is missing. If `sds-clip embed` was interrupted, run it again."
        ) from error
    return Vectors(path, About.of_json(text, about_file(path)), [map_array(path)], _JsonLines(records))
