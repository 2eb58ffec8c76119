"""Read annotation files: their JSON, the texts of its records, and the images that these name."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds_clip.models.errors import EvaluationError, quoted
from sds_clip.models.files import read_text
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.tables import table_files


@dataclass(frozen=True)
class Record:
    """An object of a JSON file, a line of one, or a row of a table. Its methods raise EvaluationError."""

    where: str
    """The place of the record, in words for messages."""
    values: dict[str, Any]
    source: str = ""
    """The name of its file, or of the shards of a table, where items have it in their ids and tags."""

    def require(self, keys: Sequence[str], layout: str) -> None:
        """Refuse a record that lacks one of these keys, naming those that it has."""
        missing = [key for key in keys if key not in self.values]
        if missing:
            raise EvaluationError(
                f"{self.where}: `{'`, `'.join(missing)}` is missing; the record has {sorted(self.values)}. The file "
                f"must be {layout}. Is it the file of another benchmark?"
            )

    def text(self, key: str) -> str:
        """Return a text, which must not be empty and must be valid Unicode."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise EvaluationError(
                f"{self.where}: `{key}` must be a text that is not empty; its value is {quoted(value)}."
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can contain these; tokenizers refuse them
            raise EvaluationError(
                f"{self.where}: `{key}` has a lone surrogate, which is not a valid character."
            ) from error
        return value

    def image(self, key: str, folder: Path) -> ImageRef:
        """Return the image of a key: the cell of a table, or the file below `folder` that the record names."""
        value = self.values.get(key)
        if isinstance(value, ImageRef):
            return value
        return ImageRef(image_path(folder, self.text(key), self.where))


def annotation_files(path: Path, names: Iterable[str] | None, benchmark: str) -> list[Path]:
    """Return the file that `path` is, or those of these names that the folder contains (None: every .json file).

    Raises:
        EvaluationError: there is no such file or folder, or the folder contains none of them.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise EvaluationError(
            f"There is no file or folder {path}; give the folder that contains the files of {benchmark}."
        )
    there = sorted(path.glob("*.json")) if names is None else [path / name for name in names]
    files = [file for file in there if file.is_file()]
    if not files:
        wanted = ".json files" if names is None else ", ".join(names)
        raise EvaluationError(
            f"{path} contains none of {wanted}; give the folder that contains the files of {benchmark}."
        )
    return files


def the_file(path: Path, name: str, give: str = "") -> Path:
    """Return the file that `path` is, or the one of this name in the folder. Raises EvaluationError: what to `give`."""
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise EvaluationError(f"There is no file {file}; give {give or f'{name} or its folder'}.")
    return file


def file_or_tables(path: Path, name: str, give: str) -> tuple[list[Path], bool]:
    """Return `the_file`, or the files of the table at `path` if the folder has no file of this name, and which it is.

    Raises: as `the_file` if there is neither; DataError.
    """
    file = path / name if path.is_dir() else path
    tables = [] if file.is_file() and file != path else table_files(path)
    return tables or [the_file(path, name, give)], bool(tables)


def read_json(file: Path, layout: str) -> Any:
    """Return a JSON file's content. `layout` describes the expected content in messages.

    Raises:
        EvaluationError: it is missing, cannot be read, is too large, repeats a key, or is not JSON in UTF-8.
    """
    text = read_text(file, EvaluationError)
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _Doubled as error:
        raise EvaluationError(f"{file} has the key {error} twice; keys must be unique.") from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{file} is not JSON; it must be {layout}.") from error


def records(content: Any, file: Path, layout: str) -> list[Record]:
    """Return the objects of a list, which must not be empty.

    Raises:
        EvaluationError: the content is something else.
    """
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise other_layout(file, layout)
    if not content:
        raise no_items(file)
    return [Record(f"{file}, [{number}]", record) for number, record in enumerate(content)]


def by_id(records: Iterable[Record], file: Path) -> dict[str, Record]:
    """Return records by their `id`.

    Raises:
        EvaluationError: there are none, an id is not a number or a text, or two are equal.
    """
    found: dict[str, Record] = {}
    for record in records:
        value = record.values.get("id")
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise EvaluationError(
                f"{record.where}: `id` must be a number or a text; its value is {quoted(value)}."
            )
        if str(value) in found:
            earlier = found[str(value)].where.removeprefix(f"{file}, ")
            raise EvaluationError(
                f"{record.where}: the id {quoted(str(value))} is already used on {earlier}; ids must be unique."
            )
        found[str(value)] = record
    if not found:
        raise no_items(file)
    return found


def other_layout(file: Path, layout: str) -> EvaluationError:
    return EvaluationError(f"{file} must be {layout}. Is it the file of another benchmark?")


def no_items(file: Path) -> EvaluationError:
    return EvaluationError(f"{file} contains no items; download it again.")


def texts_of(values: Iterable[Any], key: str, where: str) -> tuple[str, ...]:
    """Return each of the values of a key as a text. Raises: as `Record.text`."""
    return tuple(Record(where, {key: value}).text(key) for value in values)


def image_folder(images: Path | None, beside: Path, *names: str, first: str = ".") -> Path:
    """Return the folder that image names are relative to.

    It is `images` if given, else the first existing one of `names` below `beside`, else `beside`. A folder
    that holds the `first` image is preferred.

    Raises:
        EvaluationError: there is no such folder.
    """
    there = [each for each in (*(beside / name for name in names), beside) if each.is_dir()]
    having = [each for each in there if (each / first).exists()]
    folder = images or next(iter(having or there), beside)
    if not folder.is_dir():
        raise EvaluationError(f"There is no folder {folder}; give the folder that contains the images.")
    return folder


def image_path(folder: Path, name: str, where: str) -> Path:
    """Return the path of a file below a folder. Only its name is checked: links may lead to another disk.

    Raises:
        EvaluationError: the name leads out of the folder.
    """
    if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise EvaluationError(f"{where}: the image {quoted(name)} is not inside {folder}; correct the file.")
    return folder / name


class _Doubled(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Doubled(repr(next(name for name in names if names.count(name) > 1)))
    return found
