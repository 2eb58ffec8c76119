"""Images in the cells of Parquet and Arrow files, read in any order. pyarrow comes with the extra `tables`.

An Arrow file is indexed once, and each image is then a range of the file. Of a Parquet file, which cannot be entered
in the middle, the row group around the image is read, and the last groups are kept.
"""

import mmap
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Int64

from sds_clip.models.errors import DataError
from sds_clip.models.images.files import MAX_IMAGE_BYTES, ImageFileError, read_image_file

PARQUET_SUFFIX = ".parquet"
MAX_GROUP_BYTES = 512 * 2**20
"""The limit on a row group, all of whose images are in memory while one is read."""
_KEPT_GROUPS, _KEPT_INDEXES = 2, 1024
_BATCH_ROWS = 16  # decoded at once, so that a dictionary that repeats one large value is noticed early


def read_cell(file: Path, column: str, row: int) -> bytes:
    """Return an image's bytes. Raises ImageFileError."""
    try:
        if file.suffix.lower() == PARQUET_SUFFIX:
            data = _of_parquet(file, column, row)
        else:
            found = cell_range(file, column, row)
            data = None if found is None else read_image_file(file, offset=found[0], size=found[1])
    except (OSError, DataError, IndexError, UnicodeDecodeError) as error:
        reason = f": {error}" if isinstance(error, DataError) else ""
        raise ImageFileError(f"is in a table that cannot be read{reason}") from error
    if data is None:
        raise ImageFileError("has no bytes in the table")
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageFileError(f"has {len(data)} bytes; at most {MAX_IMAGE_BYTES} are allowed")
    return data


def cell_range(file: Path, column: str, row: int) -> tuple[int, int] | None:
    """Return the offset and the size of an image in an Arrow file, or None in a Parquet file or without bytes.

    Raises: DataError, OSError.
    """
    if file.suffix.lower() == PARQUET_SUFFIX:
        return None
    offsets, sizes = _index(file, file.stat().st_mtime_ns, column)
    return None if sizes[row] < 0 else (int(offsets[row]), int(sizes[row]))


def _of_parquet(file: Path, column: str, row: int) -> bytes | None:
    changed_ns = file.stat().st_mtime_ns
    _, starts = _groups(file, changed_ns)
    group = bisect_right(starts, row) - 1
    cell = _group(file, changed_ns, column, group).cells()[row - starts[group]]
    is_struct = _pyarrow().types.is_struct(cell.type)
    if not cell.is_valid:
        return None
    image: bytes | None = (cell["bytes"] if is_struct else cell).as_py()
    if image is None and is_struct and "path" in cell and (path := cell["path"].as_py()):
        raise ImageFileError(
            f"is only the path {path!r}. Save the set with save_to_disk(), which puts the images inside"
        )
    return image


def holds_images(kind: Any) -> bool:
    """Return whether a column of this type holds images: bytes, or the structs of bytes and path of `datasets`."""
    import pyarrow.types as types

    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


@contextmanager
def damaged(file: Path) -> Iterator[None]:
    """Raise what pyarrow and the disk say about a file as DataError."""
    pa = _pyarrow()
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"There is no file {file}; check the path.") from error
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} cannot be read: it is not a whole Parquet or Arrow file, or needs too much memory. Write it again."
        ) from error


def open_parquet(file: Path, metadata: Any = None) -> Any:
    """Open a Parquet file. Raises DataError."""
    with damaged(file):
        import pyarrow.parquet as pq

        return pq.ParquetFile(file, metadata=metadata)


def check_groups(file: Path) -> None:
    """Raise DataError if a row group of a Parquet file states a larger size than is read."""
    if file.suffix.lower() == PARQUET_SUFFIX:
        with damaged(file):
            metadata = open_parquet(file).metadata
            # Not by column: pyarrow ends the process where the description of a column is damaged.
            sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
        if max(sizes, default=0) > MAX_GROUP_BYTES:
            raise _group_too_large(file)


@contextmanager
def stream_batches(file: Path, columns: Sequence[str] = ()) -> Iterator[Any]:
    """Map an Arrow file, and yield a reader of its batches, with these columns or with all of them.

    The batches are parts of the map. Raises DataError.
    """
    with _mapped(file) as whole:
        yield _reader(whole, columns)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(
            "Parquet files and saved data sets are read by pyarrow, which is not installed. Install the extra "
            "`tables`: pip install 'sds-clip[tables]'."
        ) from error
    return pyarrow


@contextmanager
def _mapped(file: Path) -> Iterator[Any]:
    with damaged(file):
        with file.open("rb") as opened:
            if not opened.seek(0, 2):
                raise DataError(f"{file} is empty; write it again.")
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        yield _pyarrow().py_buffer(mapped)


def _reader(whole: Any, columns: Sequence[str]) -> Any:
    ipc = _pyarrow().ipc
    schema = ipc.open_stream(whole).schema
    included = [schema.get_field_index(name) for name in columns]
    return ipc.open_stream(whole, options=ipc.IpcReadOptions(included_fields=included))


@lru_cache(maxsize=_KEPT_INDEXES)
def _index(
    file: Path, changed_ns: int, column: str
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Return where each image begins in an Arrow file and its size, which is -1 where there is none."""
    offsets, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    with _mapped(file) as whole:
        for batch in _reader(whole, [column]):
            batch.validate(full=True)
            if not batch.num_rows:
                continue
            values = batch.column(0)
            if _pyarrow().types.is_struct(values.type):
                values = values.flatten()[values.type.get_field_index("bytes")]
            there = values.is_valid().to_numpy(zero_copy_only=False)
            wide = np.dtype(np.int64 if _pyarrow().types.is_large_binary(values.type) else np.int32)
            _, bounds, data = values.buffers()
            ends = np.frombuffer(bounds, wide, len(values) + 1, values.offset * wide.itemsize)
            start = data.address - whole.address if data is not None else 0
            if not 0 <= start <= whole.size:
                raise DataError(
                    f"{file} is compressed; save the set again, uncompressed as `save_to_disk` does."
                )
            offsets.append(start + ends[:-1].astype(np.int64))
            sizes.append(np.where(there, np.diff(ends), -1).astype(np.int64))
    return np.concatenate(offsets), np.concatenate(sizes)


@lru_cache(maxsize=_KEPT_INDEXES)
def _groups(file: Path, changed_ns: int) -> tuple[Any, list[int]]:
    """Return the metadata of a Parquet file, and the first row of each row group."""
    metadata = open_parquet(file).metadata
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return metadata, list(accumulate(sizes, initial=0))[:-1]


class _Group:
    """A column's cells in a row group, read when they are first asked for, and by one thread."""

    def __init__(self, file: Path, changed_ns: int, column: str, group: int) -> None:
        self._file, self._changed_ns, self._column, self._group = file, changed_ns, column, group
        self._cells: Any = None
        self._lock = Lock()

    def cells(self) -> Any:
        """Return the cells in their order. Raises DataError."""
        with self._lock:
            if self._cells is None:
                self._cells = self._read()
            return self._cells

    def _read(self) -> Any:
        found = []
        size = 0
        with damaged(self._file):
            parquet = open_parquet(self._file, _groups(self._file, self._changed_ns)[0])
            for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[self._group], columns=[self._column]):
                size += batch.nbytes
                if size > MAX_GROUP_BYTES:
                    raise _group_too_large(self._file)
                found.append(batch.column(0))
            return _pyarrow().chunked_array(found)


_group = lru_cache(maxsize=_KEPT_GROUPS)(_Group)


def _group_too_large(file: Path) -> DataError:
    return DataError(
        f"{file} has a row group of more than {MAX_GROUP_BYTES} bytes, all of which must be read for each of its "
        "images. Write it again with smaller groups: pyarrow.parquet.write_table(table, file, "
        "row_group_size=100)."
    )
