"""The images that are to be embedded, in an order that depends on nothing but their names."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sds_clip.models.data.shards import expand
from sds_clip.models.errors import VectorsError
from sds_clip.models.images.files import IMAGE_SUFFIXES, ImageFileError
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.table_cells import PARQUET_SUFFIX, check_groups, holds_images, open_parquet
from sds_clip.models.images.tables import IMAGE_KEYS, find_column, read_rows, schema_of
from sds_clip.models.images.tar_index import IMAGE_EXTENSIONS, read_members


def read_entry(entry: ImageRef) -> bytes:
    """Return the image's bytes. Raises ImageFileError, also for a folder or a shard that could not be listed."""
    if entry.is_file and entry.path.is_dir():
        raise ImageFileError("is a folder that cannot be listed")
    if entry.is_file and entry.path.suffix.lower() == ".tar":
        raise ImageFileError("is not a complete, uncompressed tar file")
    return entry.read()


def root_of(inputs: Sequence[str]) -> Path:
    """Return the folder that names are relative to: a single folder, a single table's folder, or the current one."""
    path = Path(inputs[0])
    if len(inputs) > 1 or not (path.is_dir() or path.suffix.lower() == PARQUET_SUFFIX):
        return Path()
    return path if path.is_dir() else path.parent


def find_entry(root: Path, name: str, *, image_key: str | None = None) -> ImageRef | None:
    """Return the image that `list_entries` named so, or None if it is gone.

    Raises:
        DataError: it is in a table that cannot be read.
    """
    for part in [Path(name), *Path(name).parents][: len(Path(name).parts)]:
        if (root / part).is_file():
            inside = _inside(root / part, part.as_posix(), image_key)
            return next((entry for entry in inside if entry.name == name), None)
    return None


def _inside(path: Path, name: str, image_key: str | None) -> Iterator[ImageRef]:
    if path.suffix.lower() == ".tar":
        return _shard(path, name)
    if path.suffix.lower() == PARQUET_SUFFIX:
        return _table(path, name.removesuffix(path.name), image_key)
    return iter([ImageRef(path, name=name)])


def list_entries(
    inputs: Sequence[str],
    *,
    image_key: str | None = None,
    leave_out: Callable[[str], None] = lambda path: None,
) -> Iterator[ImageRef]:
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
        for entry in _entries_of(given, root_of(inputs), image_key, leave_out):
            if entry.name not in seen:
                seen.add(entry.name)
                yield entry


def _entries_of(
    given: str, root: Path, image_key: str | None, leave_out: Callable[[str], None]
) -> Iterator[ImageRef]:
    path = Path(given)
    if path.is_dir():
        yield from _walk(path, "" if path == Path() else f"{path.as_posix()}/", leave_out)
        return
    for file in expand(given) if path.suffix.lower() == ".tar" else [path]:
        if not file.exists():
            raise VectorsError(f"There is no file or folder {file}; check the path.")
        yield from _inside(file, file.name if file.parent == root else file.as_posix(), image_key)


def _walk(folder: Path, prefix: str, leave_out: Callable[[str], None]) -> Iterator[ImageRef]:
    try:
        with os.scandir(folder) as found:
            children = sorted(found, key=lambda child: child.name)
    except OSError:
        yield ImageRef(folder, name=prefix.rstrip("/") or folder.name)
        return
    for child in children:
        name, path = prefix + child.name, Path(child.path)
        if child.name.startswith("."):
            continue
        if child.is_dir(follow_symlinks=False):
            yield from _walk(path, f"{name}/", leave_out)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield ImageRef(path, name=name)
        elif path.suffix.lower() == ".tar":
            yield from _shard(path, name)
        elif child.is_file():
            leave_out(child.path)


def _shard(shard: Path, name: str) -> Iterator[ImageRef]:
    seen: set[str] = set()
    try:
        for member in read_members(shard, VectorsError):
            if member.extension in IMAGE_EXTENSIONS and member.name not in seen:
                seen.add(member.name)
                yield ImageRef(shard, offset=member.offset, size=member.size, name=f"{name}/{member.name}")
    except VectorsError:
        yield ImageRef(shard, name=name)


def _table(table: Path, prefix: str, image_key: str | None) -> Iterator[ImageRef]:
    keys = IMAGE_KEYS if image_key is None else (image_key,)
    column = find_column(table, keys, "Name the column of the images with --image-key.")
    if holds_images(schema_of(table).field(column).type):
        check_groups(table)
        for row in range(open_parquet(table).metadata.num_rows):
            yield ImageRef(table, column=column, row=row, name=f"{prefix}{table.name}/{row:08d}")
        return
    for where, values in read_rows([table], column):
        name = values[column]
        if not isinstance(name, str) or not name:
            raise VectorsError(f"{where}: `{column}` is no path; fill it in, or drop the row.")
        yield ImageRef(table.parent / name, name=f"{prefix}{name}")
