"""Read whole files: text up to a limit, and hashes."""

import hashlib
from pathlib import Path

from models.errors import ModelError

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
        raise error(f"{file} cannot be read ({failure.strerror}); check the path.") from failure
    except UnicodeDecodeError as failure:
        raise error(f"{file} is not UTF-8 text; save it as UTF-8.") from failure


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
