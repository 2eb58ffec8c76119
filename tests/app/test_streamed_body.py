"""What happens to the connection of an upload that is refused before it has arrived."""

from collections.abc import Iterator

import pytest
from starlette.types import Message

from sds_clip.app.edge.streamed_body import StreamedBody

CHUNK: Message = {"type": "http.request", "body": b"x", "more_body": True}
GONE: Message = {"type": "http.disconnect"}
LAST: Message = {"type": "http.request", "body": b"x", "more_body": False}


async def refuse(announced: int, arriving: list[Message]) -> list[str]:
    """What is read and sent in turn while an upload is answered before it was read."""
    happened: list[str] = []
    messages: Iterator[Message] = iter(arriving)

    async def receive() -> Message:
        happened.append("read")
        return next(messages)

    async def send(message: Message) -> None:
        headers = dict(message.get("headers", []))
        happened.append(
            headers.get(b"connection", b"").decode() or message.get("body", b"").decode() or "end"
        )

    scope = {"type": "http", "headers": [(b"content-length", str(announced).encode())]}
    limits = {"grace_s": 30, "min_bytes_per_s": 1, "max_time_s": 60, "discard_bytes": 100}
    body = StreamedBody(scope, receive, send, **limits)
    await body.send({"type": "http.response.start", "status": 413, "headers": [(b"x-is", b"error")]})
    await body.send({"type": "http.response.body", "body": b"answer"})
    return happened


@pytest.mark.parametrize("last", [GONE, LAST])
async def test_large_refused_upload_is_read_until_its_client_goes_and_then_cut_off(last: Message) -> None:
    assert await refuse(1000, [CHUNK, CHUNK, last]) == ["close", "answer", "read", "read", "read", "end"]


async def test_small_refused_upload_is_left_to_the_server_which_discards_it() -> None:
    assert await refuse(100, []) == ["end", "answer"]
