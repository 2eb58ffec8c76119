"""Annotation files: text that is read whole, and so has a bound."""

from pathlib import Path

from models.errors import ModelError

MAX_BYTES = 2**30


def read_annotations(file: Path, error: type[ModelError]) -> str:
    """A file's text.

    Raises:
        error: it cannot be read, has more than MAX_BYTES, or is not UTF-8.
    """
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise error(
                f"{file}: has {size} bytes; {MAX_BYTES} at most are read. Is it the right file? If it is, split it."
            )
        return file.read_text(encoding="utf-8-sig")
    except OSError as failure:
        raise error(f"{file}: cannot be read ({failure.strerror}); check the path.") from failure
    except UnicodeDecodeError as failure:
        raise error(f"{file}: is not UTF-8 text; save it as UTF-8.") from failure
