"""Read annotation files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.errors import EvaluationError
from models.files import read_text


def read_json(file: Path, layout: str) -> Any:
    """Return a JSON file's content. `layout` describes the expected content in messages.

    Raises:
        EvaluationError: it is missing, cannot be read, is too large, repeats a key, or is not JSON in UTF-8.
    """
    text = read_text(file, EvaluationError)
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _Doubled as error:
        raise EvaluationError(f"{file}: has the key {error} twice; keys must be unique.") from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{file}: is not JSON; it must be {layout}.") from error


def records(content: Any, file: Path, layout: str) -> list[dict[str, Any]]:
    """Return `content` as a list of objects that is not empty.

    Raises:
        EvaluationError: it is something else.
    """
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise EvaluationError(f"{file}: must be {layout}; is it another benchmark's file?")
    if not content:
        raise EvaluationError(f"{file}: holds no items; download it again.")
    return content


def require_keys(record: dict[str, Any], keys: tuple[str, ...], where: str, layout: str) -> None:
    """Raise EvaluationError naming the keys that a record lacks, and those it has."""
    missing = [key for key in keys if key not in record]
    if missing:
        raise EvaluationError(
            f"{where}: has no `{'`, `'.join(missing)}` but {sorted(record)}; it must be {layout}. Is it another "
            "benchmark's file?"
        )


class _Doubled(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Doubled(repr(next(name for name in names if names.count(name) > 1)))
    return found
