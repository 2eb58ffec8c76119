"""Embeddings in Arrow's and Parquet's formats. pyarrow comes with the extra `tables`."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from glob import escape
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sds_clip.models.atomic import atomic_file
from sds_clip.models.errors import VectorsError
from sds_clip.models.images.tables import EMBEDDINGS
from sds_clip.models.vectors.about import About
from sds_clip.models.vectors.mapped import Records, Row, Vectors, map_array, write_header

_ROWS_AT_ONCE = 16_384


def write_arrow(path: Path, about: About, rows: Iterable[Row]) -> None:
    """Write the columns path, sha256 and embedding. Raises OSError."""
    import pyarrow as pa

    schema = pa.schema(_fields(about), metadata={EMBEDDINGS: about.as_json()})
    with atomic_file(path) as file, _writer(path, file, schema) as writer:
        remaining = iter(rows)
        while block := list(islice(remaining, _ROWS_AT_ONCE)):
            records = [json.loads(record) for record, _ in block]
            embeddings = np.frombuffer(b"".join(embedding for _, embedding in block), about.dtype)
            columns = [
                pa.array([record[name] for record in records], pa.string()) for name in ("path", "sha256")
            ]
            numbers = pa.FixedSizeListArray.from_arrays(pa.array(embeddings), about.dimensions)
            writer.write_batch(pa.record_batch([*columns, numbers], schema))


def _writer(path: Path, file: Any, schema: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".arrow":
        return pa.ipc.new_file(file, schema)
    # Embeddings and hashes are noise to a compressor.
    return pq.ParquetWriter(file, schema, compression={"path": "zstd"}, use_dictionary=False)


def open_arrow(path: Path) -> Vectors:
    """Map an Arrow file into memory. Raises VectorsError."""
    import pyarrow as pa

    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)
    except pa.ArrowException as error:
        raise VectorsError(f"{path} is not a whole Arrow file; embed the images again.") from error
    about = _about(path, reader.schema)
    blocks = [_array(batch.column("embedding"), about) for batch in batches]
    return Vectors(path, about, blocks, _Columns(pa.Table.from_batches(batches, reader.schema).select))


def open_parquet(path: Path) -> Vectors:
    """Open a Parquet file's records, and the copy of its embeddings. Raises VectorsError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(path)
        about = _about(path, parquet.schema_arrow)
        copy = _copied(path, parquet, about)
    except pa.ArrowException as error:
        raise VectorsError(f"{path} is not a whole Parquet file; embed the images again.") from error
    return Vectors(path, about, [map_array(copy)], _Columns(lambda names: pq.read_table(path, columns=names)))


def remove_copies(path: Path) -> None:
    """Remove the arrays that `open_parquet` left beside a Parquet file."""
    for copy in path.parent.glob(f".{escape(path.name)}.*.npy"):
        copy.unlink(missing_ok=True)


def _copied(path: Path, parquet: Any, about: About) -> Path:
    """Return a Parquet file's embeddings as an array beside it, which is named after the file's size and time."""
    status = path.stat()
    copy = path.with_name(f".{path.name}.{status.st_size}-{status.st_mtime_ns}.npy")
    if not copy.exists():
        try:
            remove_copies(path)
            with atomic_file(copy, durable=False) as file:
                write_header(file, (parquet.metadata.num_rows, about.dimensions), np.dtype(about.dtype))
                for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=["embedding"]):
                    file.write(_array(batch.column(0), about).tobytes())
        except OSError as error:
            raise VectorsError(
                f"{path} is copied as an array before it is searched, but {copy} cannot be written ({error.strerror}). "
                "Free some space, move the file to a folder that you may write to, or embed to .arrow."
            ) from error
    return copy


def _about(path: Path, schema: Any) -> About:
    """What the file says of its rows. Raises VectorsError, also if its columns are others."""
    about = About.of_json((schema.metadata or {}).get(EMBEDDINGS, b""), path)
    if {field.name: field.type for field in schema} != _fields(about):
        raise VectorsError(f"{path} does not hold what it says that it holds; embed the images again.")
    return about


def _fields(about: About) -> dict[str, Any]:
    import pyarrow as pa

    numbers = pa.list_(pa.from_numpy_dtype(np.dtype(about.dtype)), about.dimensions)
    return {"path": pa.string(), "sha256": pa.string(), "embedding": numbers}


def _array(column: Any, about: About) -> np.ndarray:
    if column.null_count:
        raise VectorsError("The file has rows without an embedding; embed the images again.")
    return np.asarray(column.flatten().to_numpy(zero_copy_only=True)).reshape(-1, about.dimensions)


class _Columns(Records):
    """Records in columns, which are read when they are asked for."""

    def __init__(self, read: Callable[[list[str]], Any]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for batch in self._read(["path", "sha256"]).to_batches():
            yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)

    def paths(self, rows: Sequence[int]) -> list[str]:
        column = self._read(["path"]).column("path")
        return [column[row].as_py() for row in rows]
