"""Read annotation files: their JSON, the texts of its records, and the images that these name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from models.errors import EvaluationError, quoted
from models.evaluation.items import CellImage
from models.evaluation.results import ImageRegion
from models.files import read_text
from models.table_cells import Cell
from models.tables import read_rows


def annotation_files(path: Path, names: Sequence[str] | None, benchmark: str) -> list[Path]:
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


def files_missing(files: Sequence[Path], names: Sequence[str]) -> dict[str, Any]:
    """Return the setting that says which of a benchmark's files are not among those read, or no setting."""
    there = {file.stem for file in files}
    missing = [stem for name in names if (stem := Path(name).stem) not in there]
    return {"files_missing": missing} if missing else {}


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


def by_id(
    numbered: Iterable[tuple[str, dict[str, Any]]], file: Path
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return records, with where they stand in words for messages, by their `id`.

    Raises:
        EvaluationError: there are none, an id is not a number or a text, or two are equal.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for where, record in numbered:
        value = record.get("id")
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise EvaluationError(f"{where}: `id` must be a number or a text; its value is {quoted(value)}.")
        if str(value) in found:
            earlier = found[str(value)][0].removeprefix(f"{file}, ")
            raise EvaluationError(
                f"{where}: the id {quoted(str(value))} is already used on {earlier}; ids must be unique."
            )
        found[str(value)] = where, record
    if not found:
        raise EvaluationError(f"{file} contains no items; download it again.")
    return found


def records(content: Any, file: Path, layout: str) -> list[dict[str, Any]]:
    """Return `content` as a list of objects that is not empty.

    Raises:
        EvaluationError: it is something else.
    """
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise EvaluationError(f"{file} must be {layout}. Is it the file of another benchmark?")
    if not content:
        raise EvaluationError(f"{file} contains no items; download it again.")
    return content


def read_records(file: Path, keys: tuple[str, ...], layout: str) -> list[tuple[str, dict[str, Any]]]:
    """Return each object of a JSON list, with where it stands in words for messages. All must have these keys.

    Raises:
        EvaluationError: the file is something else.
    """
    found = [
        (f"{file}, [{number}]", record)
        for number, record in enumerate(records(read_json(file, layout), file, layout))
    ]
    for where, record in found:
        require_keys(record, keys, where, layout)
    return found


def read_table(
    files: Sequence[Path], keys: tuple[str, ...], optional: tuple[str, ...], layout: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of a table, with where it stands in words for messages. All must have these keys.

    Raises:
        EvaluationError or DataError: the table is something else, or damaged.
    """
    for where, record in read_rows(files, *keys, *optional):
        require_keys(record, keys, where, layout)
        yield where, record


def require_keys(record: dict[str, Any], keys: tuple[str, ...], where: str, layout: str) -> None:
    """Raise EvaluationError naming the keys that a record lacks, and those it has."""
    missing = [key for key in keys if key not in record]
    if missing:
        raise EvaluationError(
            f"{where}: `{'`, `'.join(missing)}` is missing; the record has {sorted(record)}. The file "
            f"must be {layout}. Is it the file of another benchmark?"
        )


def text_of(record: dict[str, Any], key: str, where: str) -> str:
    """Return a text of a record, which must not be empty and must be valid Unicode.

    Raises:
        EvaluationError: it is missing, empty, no text, or holds half of a surrogate pair.
    """
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise EvaluationError(
            f"{where}: `{key}` must be a text that is not empty; its value is {quoted(value)}."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can contain these; tokenizers refuse them
        raise EvaluationError(
            f"{where}: `{key}` has a lone surrogate, which is not a valid character."
        ) from error
    return value


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


def image_of(record: dict[str, Any], key: str, where: str, folder: Path) -> ImageRegion:
    """Return the image of a record: the cell of a table, or the file below `folder` that the record names.

    Raises:
        EvaluationError: it is neither.
    """
    value = record.get(key)
    if isinstance(value, Cell):
        return CellImage(value.file, None, value.column, value.row)
    return ImageRegion(image_path(folder, text_of(record, key, where), where))


class _Doubled(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Doubled(repr(next(name for name in names if names.count(name) > 1)))
    return found
