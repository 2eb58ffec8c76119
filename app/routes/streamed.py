"""The responses that are streamed: a version's tar, a run's log, a job's events."""

from collections.abc import AsyncIterable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

from starlette.responses import Response, StreamingResponse
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


class HeldStream(StreamingResponse):
    """A stream that holds something, such as an open file, until it has ended, however that is."""

    def __init__(self, *content: Any, holder: AbstractContextManager[object], **options: Any) -> None:
        super().__init__(*content, **options)
        self._holder = holder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._holder:
            await super().__call__(scope, receive, send)


def tar_response(download: Download) -> Response:
    """A version as a tar stream. What was made for the download is removed at its end."""
    headers = {
        "Content-Length": str(download.size_bytes),
        "Content-Disposition": f'attachment; filename="{download.root}.tar"',
    }
    return HeldStream(download.chunks(), holder=download.holder, media_type=TAR, headers=headers)


def log_response(log: BinaryIO, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.jsonl"'}
    return HeldStream(whole_lines(log), holder=log, media_type=JSON_LINES, headers=headers)


def event_stream(content: AsyncIterable[str], streams: Budget, caller: Caller) -> Response:
    """Events. They count as a stream of the caller while they are sent.

    The response raises Overloaded, before anything is sent, if the caller may have no more.
    """
    holder, headers = streams.hold(1, caller.name), {"X-Accel-Buffering": "no"}
    return HeldStream(content, holder=holder, media_type=EVENT_STREAM, headers=headers)
