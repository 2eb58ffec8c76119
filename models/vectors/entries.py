"""The images that are to be embedded, in an order that depends on nothing but their names."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sds_clip.models.data.shards import expand
from sds_clip.models.errors import VectorsError
from sds_clip.models.images.files import IMAGE_SUFFIXES, ImageFileError, read_image_file
from sds_clip.models.images.table_cells import PARQUET_SUFFIX, Cell, check_groups, holds_images, open_parquet
from sds_clip.models.images.tables import IMAGE_KEYS, find_column, read_rows, schema_of
from sds_clip.models.images.tar_index import IMAGE_EXTENSIONS, read_members


@dataclass(frozen=True, slots=True)
class Entry:
    """An image's name, and where its bytes are: a file, `size` bytes of a shard, or a cell of a table."""

    name: str
    file: str
    offset: int | None = None
    size: int | None = None
    column: str | None = None
    row: int | None = None

    def read(self) -> bytes:
        """Return the image's bytes. Raises ImageFileError."""
        path = Path(self.file)
        if self.column is not None and self.row is not None:
            return Cell(path, self.column, self.row).read()
        if self.offset is None and path.is_dir():
            raise ImageFileError("is a folder that cannot be listed")
        if self.offset is None and path.suffix.lower() == ".tar":
            raise ImageFileError("is not a complete, uncompressed tar file")
        return read_image_file(path, offset=self.offset or 0, size=self.size)


def root_of(inputs: Sequence[str]) -> Path:
    """Return the folder that names are relative to: a single folder, a single table's folder, or the current one."""
    path = Path(inputs[0])
    if len(inputs) > 1 or not (path.is_dir() or path.suffix.lower() == PARQUET_SUFFIX):
        return Path()
    return path if path.is_dir() else path.parent


def find_entry(root: Path, name: str, *, image_key: str | None = None) -> Entry | None:
    """Return the image that `list_entries` named so, or None if it is gone.

    Raises:
        DataError: it is in a table that cannot be read.
    """
    for depth, path in enumerate([root / name, *(root / name).parents][: len(Path(name).parts)]):
        if path.is_file():
            given = Path(name)
            inside = _inside(
                path, given.parents[depth - 1].as_posix() if depth else given.as_posix(), image_key
            )
            return next((entry for entry in inside if entry.name == name), None)
    return None


def _inside(path: Path, name: str, image_key: str | None) -> Iterator[Entry]:
    if path.suffix.lower() == ".tar":
        return _shard(path, name)
    if path.suffix.lower() == PARQUET_SUFFIX:
        return _table(path, name.removesuffix(path.name), image_key)
    return iter([Entry(name, str(path))])


def list_entries(
    inputs: Sequence[str],
    *,
    image_key: str | None = None,
    leave_out: Callable[[str], None] = lambda path: None,
) -> Iterator[Entry]:
    """Yield the images of folders, files, tables and shards. No name comes twice.

    A folder is listed with its subfolders, without hidden files and without following links to folders. Shards in
    it are opened. What cannot be listed is an entry that cannot be read. `leave_out` is called with the
    path of every other file in a folder.

    Raises:
        VectorsError or DataError: an input does not exist, or is a table without images.
    """
    if len(inputs) == 1 and Path(inputs[0]).is_dir():
        yield from _walk(Path(inputs[0]), "", leave_out)
        return
    seen: set[str] = set()
    for given in sorted(set(inputs)):
        for entry in _entries_of(given, image_key, root_of(inputs), leave_out):
            if entry.name not in seen:
                seen.add(entry.name)
                yield entry


def _entries_of(
    given: str, image_key: str | None, root: Path, leave_out: Callable[[str], None]
) -> Iterator[Entry]:
    path = Path(given)
    if path.is_dir():
        yield from _walk(path, _prefix(path), leave_out)
    elif path.suffix.lower() == PARQUET_SUFFIX:
        yield from _table(path, "" if root == path.parent else _prefix(path.parent), image_key)
    elif path.suffix.lower() == ".tar":
        for shard in expand(given):
            _must_exist(shard)
            yield from _shard(shard, shard.as_posix())
    else:
        _must_exist(path)
        yield Entry(path.as_posix(), given)


def _prefix(folder: Path) -> str:
    return "" if folder == Path() else f"{folder.as_posix()}/"


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise VectorsError(f"There is no file or folder {path}; check the path.")


def _walk(folder: Path, prefix: str, leave_out: Callable[[str], None]) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as found:
            children = sorted(found, key=lambda child: child.name)
    except OSError:
        yield Entry(prefix.rstrip("/") or folder.name, str(folder))
        return
    for child in children:
        name, suffix = prefix + child.name, Path(child.name).suffix.lower()
        if child.name.startswith("."):
            continue
        if child.is_dir(follow_symlinks=False):
            yield from _walk(Path(child.path), f"{name}/", leave_out)
        elif suffix in IMAGE_SUFFIXES:
            yield Entry(name, child.path)
        elif suffix == ".tar":
            yield from _shard(Path(child.path), name)
        elif child.is_file():
            leave_out(child.path)


def _shard(shard: Path, name: str) -> Iterator[Entry]:
    seen: set[str] = set()
    try:
        for member in read_members(shard, VectorsError):
            if member.extension in IMAGE_EXTENSIONS and member.name not in seen:
                seen.add(member.name)
                yield Entry(f"{name}/{member.name}", str(shard), member.offset, member.size)
    except VectorsError:
        yield Entry(name, str(shard))


def _table(table: Path, prefix: str, image_key: str | None) -> Iterator[Entry]:
    _must_exist(table)
    keys = IMAGE_KEYS if image_key is None else (image_key,)
    column = find_column(table, keys, "Name the column of the images with --image-key.")
    if holds_images(schema_of(table).field(column).type):
        check_groups(table)
        for row in range(open_parquet(table).metadata.num_rows):
            yield Entry(f"{prefix}{table.name}/{row:08d}", str(table), column=column, row=row)
        return
    for where, values in read_rows([table], column):
        name = values[column]
        if not isinstance(name, str) or not name:
            raise VectorsError(f"{where}: `{column}` is no path; fill it in, or drop the row.")
        yield Entry(f"{prefix}{name}", str(table.parent / name))
