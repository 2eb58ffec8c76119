"""Read whole files: text up to a limit, and hashes."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sds_clip.models.errors import ModelError

MAX_TEXT_BYTES = 2**30
"""The limit for annotation files, which are held in memory whole."""


def read_text(file: Path, error: type[ModelError], *, max_bytes: int | None = None) -> str:
    """Return the text of an annotation file in UTF-8, with or without a byte order mark.

    Raises:
        error: it cannot be read, has more than `max_bytes` (default MAX_TEXT_BYTES), or is not UTF-8.
    """
    try:
        size = file.stat().st_size
        limit = MAX_TEXT_BYTES if max_bytes is None else max_bytes
        if size > limit:
            raise error(
                f"{file} has {size} bytes; at most {limit} are read. Is it the right file? If it is, "
                "split it."
            )
        return file.read_text(encoding="utf-8-sig")
    except OSError as failure:
        raise error(
            f"{file} cannot be read ({failure.strerror}); check the path and its permissions."
        ) from failure
    except UnicodeDecodeError as failure:
        raise not_utf_8(file, error) from failure


def not_utf_8(file: Path, error: type[ModelError]) -> ModelError:
    """The error for a file that is not UTF-8, which names the first line that is not."""
    with file.open("rb") as lines:
        numbered = enumerate(lines, start=1)
        number = next(
            (number for number, line in numbered if line.decode(errors="ignore").encode() != line), 1
        )
    return error(f"{file}, line {number}: the file is not UTF-8 text; save it as UTF-8.")


def read_object(file: Path, error: type[ModelError], remedy: str) -> dict[str, Any]:
    """Return the object that a file holds as JSON.

    Raises:
        error: it cannot be read as text, is not JSON, or is no object. The `remedy` ends the last two messages.
    """
    text = read_text(file, error)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise error(f"{file} is not JSON; {remedy}.") from failure
    if not isinstance(content, dict):
        raise error(f"{file} must be a JSON object; {remedy}.")
    return content


def numbered_lines(
    file: Path, error: type[ModelError], layout: str, *, max_bytes: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of each line of a JSONL file. `layout` describes a line.

    Raises:
        error: the file cannot be read or is too large, or a line is not a JSON object.
    """
    text = read_text(file, error, max_bytes=max_bytes)
    # Not splitlines(): a caption may hold U+2028, which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as failure:
            raise error(
                f"{where}: the line is not JSON; every line must be {layout}. Is it another file?"
            ) from failure
        if not isinstance(record, dict):
            raise error(
                f"{where}: the line is not a JSON object; every line must be {layout}. Is it another file?"
            )
        yield number, record


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
