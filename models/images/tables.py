"""Tables whose rows hold images: Parquet files, and folders that Hugging Face's `datasets` saved (`save_to_disk`).

pyarrow reads them, which comes with the extra `tables`. Images are read singly; see table_cells.py.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sds_clip.models.errors import DataError
from sds_clip.models.files import MAX_TEXT_BYTES, read_object
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.table_cells import (
    PARQUET_SUFFIX,
    check_groups,
    damaged,
    holds_images,
    open_parquet,
    stream_batches,
)
from sds_clip.models.images.tar_index import PatternError, expand_braces

STATE, SPLITS = "state.json", "dataset_dict.json"
"""What `save_to_disk` writes beside the Arrow files of a Dataset, and into the folder of a DatasetDict."""
IMAGE_KEYS = ("image", "filepath", "file_name", "path")
"""The columns of images that are looked for if none is named."""
EMBEDDINGS = b"sds_clip"
"""The key of the metadata that tells a file of embeddings."""
MAX_ROWS = 5_000_000
"""The limit on the rows of a table, since a small file can state any number of empty ones."""

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.parquet")
_BATCH_ROWS = 32  # decoded at once, so that a dictionary that repeats one large value is noticed early

Row = tuple[str, dict[str, Any]]
"""Where a row stands, in words for messages, and its values by column. An image is an ImageRef."""


def table_files(path: str | Path, *, several_splits: bool = False) -> list[Path]:
    """Return the files of the table at `path`, in order, or an empty list if there is none.

    A table is a Parquet file, a pattern of them (`train-{00000..00003}-of-00004.parquet`), a folder that has some, or
    has them in `data/` as repositories of the hub do, or a folder that `datasets` saved.

    Raises:
        DataError: the folder is damaged, or holds several splits, unless `several_splits` allows these.
    """
    folder = Path(path)
    if folder.is_dir():
        if (folder / STATE).is_file():
            return _saved_files(folder)
        if (folder / SPLITS).is_file():
            return _saved_files(_only_split(folder))
        files = sorted(folder.glob("[!.]*.parquet")) or sorted(folder.glob("data/[!.]*.parquet"))
        # What `sds-clip embed` wrote beside the images is no data.
        tables = [file for file in files if EMBEDDINGS not in (schema_of(file).metadata or {})]
        return tables if several_splits else _of_one_split(folder, tables)
    if folder.suffix.lower() != PARQUET_SUFFIX:
        return []
    try:
        return [Path(name) for name in expand_braces(str(path), most=MAX_ROWS)]
    except PatternError as error:
        raise DataError(f"{path}: {error}") from error


def is_saved_folder(path: Path) -> bool:
    """Return whether `datasets` saved this folder."""
    return (path / STATE).is_file() or (path / SPLITS).is_file()


def read_rows(files: Iterable[Path], *wanted: str) -> Iterator[Row]:
    """Yield the rows of files, with those of the `wanted` columns that each file has.

    Raises:
        DataError: a file is missing or damaged, a wanted column holds something else than images, texts and whole
            numbers, or there are too many rows or too much text.
    """
    rows = text_bytes = 0
    for file in files:
        row = 0
        schema = schema_of(file)
        names = [name for name in dict.fromkeys(wanted) if name in schema.names]
        images = [name for name in names if holds_images(schema.field(name).type)]
        plain = [name for name in names if name not in images]
        for name in plain:
            _check_plain(schema.field(name).type, name, file)
        if images:
            check_groups(file)
        for batch in _batches(file, plain):
            rows += batch.num_rows
            text_bytes += batch.nbytes
            if rows > MAX_ROWS or text_bytes > MAX_TEXT_BYTES:
                raise _too_large(file)
            for values in batch.to_pylist() if plain else [{}] * batch.num_rows:
                yield (
                    f"{file}, row {row}",
                    values | {name: ImageRef(file, column=name, row=row) for name in images},
                )
                row += 1


def schema_of(file: Path) -> Any:
    """Return the columns of a file. Raises DataError."""
    with damaged(file):
        if file.suffix.lower() == PARQUET_SUFFIX:
            schema = open_parquet(file).schema_arrow
        else:
            with stream_batches(file) as reader:
                schema = reader.schema
        names = schema.names
    if len(set(names)) < len(names):
        raise DataError(
            f"{file} has two columns of one name; rename one. Its columns are {', '.join(names)}."
        )
    return schema


def find_column(file: Path, keys: Sequence[str], option: str) -> str:
    """Return the first of these columns that a file has. Raises DataError that names the `option` to choose another."""
    names = schema_of(file).names
    for key in keys:
        if key in names:
            return key
    raise DataError(
        f"{file} has no column {' or '.join(f'`{key}`' for key in keys)}; its columns are {', '.join(names)}. {option}"
    )


def class_names(file: Path, column: str) -> tuple[str, ...] | None:
    """Return the names of the classes that a column numbers, if `datasets` wrote them into the file."""
    try:
        about = json.loads((schema_of(file).metadata or {})[b"huggingface"])
        names = about["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _batches(file: Path, columns: list[str]) -> Iterator[Any]:
    """Yield these columns, a few rows at a time."""
    with damaged(file):
        if file.suffix.lower() != PARQUET_SUFFIX:
            with stream_batches(file, columns) as reader:
                for whole in reader:
                    batch = whole.select(columns)
                    batch.validate(full=True)
                    for start in range(0, batch.num_rows, _BATCH_ROWS):
                        yield batch.slice(start, _BATCH_ROWS)
            return
        parquet = open_parquet(file)
        if parquet.metadata.num_rows > MAX_ROWS:
            raise _too_large(file)
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            batch.validate(full=True)
            yield batch


def _too_large(file: Path) -> DataError:
    return DataError(
        f"{file}: the table has more than {MAX_ROWS} rows, or more than {MAX_TEXT_BYTES} bytes beside its images. "
        "Split it."
    )


def _check_plain(kind: Any, name: str, file: Path) -> None:
    import pyarrow.types as types

    inner = kind
    if types.is_list(inner) or types.is_large_list(inner) or types.is_fixed_size_list(inner):
        inner = inner.value_type
    if types.is_dictionary(inner):
        inner = inner.value_type
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_null)
    if not any(test(inner) for test in tests):
        raise DataError(
            f"{file}: the column `{name}` has the type {kind}, but images are bytes, and everything else is text or "
            "whole numbers. Convert the column, or name another one."
        )


def _saved_files(folder: Path) -> list[Path]:
    state = read_object(folder / STATE, DataError, "save the set again")
    files = state.get("_data_files")
    if not isinstance(files, list) or not files or state.get("_indices_data_files"):
        raise DataError(
            f"{folder / STATE} names no files of data, or an order of its own for them. Save the set again with "
            "flatten_indices() and save_to_disk()."
        )
    return [
        _beside(folder / STATE, file.get("filename") if isinstance(file, dict) else file) for file in files
    ]


def _only_split(folder: Path) -> Path:
    names = read_object(folder / SPLITS, DataError, "save the set again").get("splits")
    if not isinstance(names, list) or not names:
        raise DataError(f"{folder / SPLITS} names no splits; save the set again.")
    splits = [_beside(folder / SPLITS, name) for name in names]
    if len(splits) > 1:
        raise DataError(
            f"{folder} holds the splits {', '.join(split.name for split in splits)}; give the folder of one, such as "
            f"{splits[0]}."
        )
    return splits[0]


def _beside(file: Path, name: Any) -> Path:
    """Return the path of a name in a file's folder, which must not lead elsewhere. Raises DataError."""
    if not isinstance(name, str) or name != Path(name).name or "\0" in name or name in ("", ".."):
        raise DataError(f"{file}: {name!r} is not a name in this folder; save the set again.")
    return file.parent / name


def split_of(file: Path) -> str:
    """The name of a file without the number of its shard: `train` of `train-00000-of-00004.parquet`."""
    found = _SHARD.fullmatch(file.name)
    return found[1] if found else file.stem


def _of_one_split(folder: Path, files: list[Path]) -> list[Path]:
    """Refuse files of several splits, whose rows may have other meanings, and would be mixed."""
    splits = {found[1] for file in files if (found := _SHARD.fullmatch(file.name))}
    if len(splits) > 1:
        raise DataError(
            f"{folder} holds Parquet files of the splits {', '.join(sorted(splits))}; give the files of one, such as "
            f"{files[0].parent}/{sorted(splits)[0]}-{{00000..00003}}-of-00004.parquet, or put them into a folder."
        )
    return files
