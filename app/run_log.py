"""Reads a training run's log: JSON lines, as far as they are written."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from sds_clip.app.errors import NoLog

_CHUNK_BYTES = 2**16


def open_log(candidates: Iterable[Path]) -> BinaryIO:
    """Open the first of these files that exists. Raises NotFound."""
    for path in candidates:
        try:
            return path.open("rb")
        except FileNotFoundError:
            continue
    raise NoLog(
        "There is no log. Only a fine-tuning job that has started has one, and the version that it made keeps it. "
        "A version that no job of this service made has none. The log of a job without a version is removed with "
        "the job's files.",
    )


def whole_lines(log: BinaryIO) -> Iterator[bytes]:
    """The log in chunks that end with a line, without a last line that is still being written."""
    tail = b""
    while chunk := log.read(_CHUNK_BYTES):
        whole, newline, tail = (tail + chunk).rpartition(b"\n")
        yield whole + newline
