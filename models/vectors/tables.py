"""Images in Parquet: cells with their bytes, or paths of files. pyarrow comes with the extra `tables`."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

from models.errors import VectorsError
from models.image_files import MAX_IMAGE_BYTES, ImageFileError

TABLE_SUFFIX = ".parquet"
IMAGE_KEYS = ("image", "filepath", "file_name", "path")
"""The columns that are looked for if none is named. Hugging Face's `datasets` writes `image`."""
_KEPT_GROUPS = 2

_groups: OrderedDict[tuple[Path, int, str, int], Any] = OrderedDict()
_lock = Lock()


def table_rows(table: Path, image_key: str | None) -> Iterator[tuple[int, str, str | None]]:
    """Yield each row's number, the column of images, and the path in it, or None if the cell holds the image.

    Raises:
        VectorsError: the file is not Parquet, has no such column, or has one of another kind.
    """
    import pyarrow as pa

    parquet = _opened(table)
    column = _column(table, parquet.schema_arrow.names, image_key)
    kind = parquet.schema_arrow.field(column).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        row = 0
        for batch in parquet.iter_batches(columns=[column]):
            for path in batch.column(0).to_pylist():
                if not path:
                    raise VectorsError(
                        f"{table}, row {row}: `{column}` is empty; fill it in, or drop the row."
                    )
                yield row, column, path
                row += 1
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _has_bytes(kind):
        yield from ((row, column, None) for row in range(parquet.metadata.num_rows))
    else:
        raise VectorsError(
            f"{table}: the column `{column}` has the type {kind}, but images are bytes, or paths as text. Name "
            "another column with --image-key."
        )


def read_cell(table: Path, column: str, row: int) -> bytes:
    """Return the bytes of the image in a row. Raises ImageFileError."""
    try:
        changed_ns = table.stat().st_mtime_ns
        starts = _starts(table, changed_ns)
        group = bisect_right(starts, row) - 1
        cell = _group(table, changed_ns, column, group)[row - starts[group]].as_py()
    except (OSError, VectorsError, ValueError, IndexError) as error:
        raise ImageFileError("is in a table that cannot be read") from error
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise ImageFileError("has no bytes in the table")
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageFileError(f"has {len(data)} bytes; at most {MAX_IMAGE_BYTES} are allowed")
    return data


def _opened(table: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(table)
    except pa.ArrowInvalid as error:
        raise VectorsError(f"{table} is not a Parquet file, or is damaged; check it.") from error


@lru_cache(maxsize=4)
def _starts(table: Path, changed_ns: int) -> list[int]:
    """Return the first row of each row group."""
    metadata = _opened(table).metadata
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return list(accumulate(sizes, initial=0))[:-1]


def _group(table: Path, changed_ns: int, column: str, group: int) -> Any:
    """Return the column's cells in a row group. The last ones are kept, since rows are read in their order."""
    key = (table, changed_ns, column, group)
    with _lock:
        if key not in _groups:
            _groups[key] = _opened(table).read_row_group(group, columns=[column]).column(0)
        while len(_groups) > _KEPT_GROUPS:
            _groups.popitem(last=False)
        return _groups[key]


def _column(table: Path, columns: list[str], image_key: str | None) -> str:
    wanted = IMAGE_KEYS if image_key is None else (image_key,)
    for name in wanted:
        if name in columns:
            return name
    raise VectorsError(
        f"{table} has no column {' or '.join(f'`{name}`' for name in wanted)}; its columns are {', '.join(columns)}. "
        "Name the column of the images with --image-key."
    )


def _has_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
