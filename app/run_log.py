"""Sends a training run's log to a caller: JSON lines, as far as they are written."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.errors import NoLog

JSON_LINES = "application/jsonl"
LOG: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One JSON object per line: every logged point, and at the end the validation metrics.",
        "content": {JSON_LINES: {"schema": {"type": "string"}}},
    }
}
_CHUNK_BYTES = 2**16


def open_log(candidates: Iterable[Path]) -> BinaryIO:
    """Open the first of these files that exists. Raises NotFound."""
    for path in candidates:
        try:
            return path.open("rb")
        except FileNotFoundError:
            continue
    raise NoLog(
        "There is no log. Only a fine-tuning job that has started has one. The log is kept with the version "
        "that the job made. If the job made no version, its log is removed with the job's files.",
    )


class LogResponse(StreamingResponse):
    """A response with the log. It closes the file however it ends."""

    def __init__(self, log: BinaryIO, name: str) -> None:
        headers = {"Content-Disposition": f'attachment; filename="{name}.jsonl"'}
        super().__init__(_whole_lines(log), media_type=JSON_LINES, headers=headers)
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._log:
            await super().__call__(scope, receive, send)


def _whole_lines(log: BinaryIO) -> Iterator[bytes]:
    """The log in chunks that end with a line, without a last line that is still being written."""
    tail = b""
    while chunk := log.read(_CHUNK_BYTES):
        whole, newline, tail = (tail + chunk).rpartition(b"\n")
        yield whole + newline
