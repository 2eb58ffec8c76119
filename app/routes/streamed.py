"""The responses that are streamed: a version's tar, a run's log, a job's events."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sds_clip.app.budgets import Budget
from sds_clip.app.jobs.stream import EVENT_STREAM
from sds_clip.app.keys import Caller
from sds_clip.app.registry.download import Download
from sds_clip.app.run_log import whole_lines

TAR = "application/x-tar"
JSON_LINES = "application/jsonl"
LOG: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One JSON object per line: every logged point, and at the end the validation metrics.",
        "content": {JSON_LINES: {"schema": {"type": "string"}}},
    }
}

FRAMES: dict[str, Any] = {
    EVENT_STREAM: {
        "schema": {
            "type": "object",
            "description": "The fields of an event of the stream. `data` is a JSON object as a string.",
            "properties": {
                "event": {"type": "string"},
                "data": {"type": "string", "contentMediaType": "application/json"},
                "id": {"type": "string"},
                "retry": {"type": "integer"},
            },
        }
    }
}
"""The content of a stream of Server-Sent Events."""


class TarResponse(StreamingResponse):
    """A version as a tar stream. What was made for the download is removed however the response ends."""

    def __init__(self, download: Download) -> None:
        headers = {
            "Content-Length": str(download.size_bytes),
            "Content-Disposition": f'attachment; filename="{download.root}.tar"',
        }
        chunks: Iterator[bytes] = download.chunks()
        super().__init__(chunks, media_type=TAR, headers=headers)
        self._holder = download.holder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._holder:
            await super().__call__(scope, receive, send)


class LogResponse(StreamingResponse):
    """A response with the log. It closes the file however it ends."""

    def __init__(self, log: BinaryIO, name: str) -> None:
        headers = {"Content-Disposition": f'attachment; filename="{name}.jsonl"'}
        super().__init__(whole_lines(log), media_type=JSON_LINES, headers=headers)
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._log:
            await super().__call__(scope, receive, send)


class EventStream(StreamingResponse):
    """A job's events. It counts as a stream while it is being sent, however it ends.

    Raises Overloaded, before anything is sent, if the caller may have no more.
    """

    def __init__(self, content: AsyncIterator[str], streams: Budget, caller: Caller) -> None:
        headers = {"X-Accel-Buffering": "no"}
        super().__init__(content, media_type=EVENT_STREAM, headers=headers)
        self._streams = streams
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.hold(1, self._caller.name):
            await super().__call__(scope, receive, send)
