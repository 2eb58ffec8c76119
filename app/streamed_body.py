"""The body of an upload: as long as it likes in all, but never silent for long, and cut off once it is refused."""

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from app.errors import BodyTimeout

STREAMED = frozenset([("POST", "/datasets")])
"""Routes that write a form's files to the disk as they arrive, within limits of their own."""

_FORM = "multipart/form-data"


def is_streamed(scope: Scope) -> bool:
    """Whether a request is an upload: its JSON form has the limits of every other body."""
    if (scope["method"], scope["path"]) not in STREAMED:
        return False
    media_type = Headers(scope=scope).get("content-type", "").partition(";")[0]
    return media_type.strip().lower() == _FORM


class StreamedBody:
    """Stands between an upload's connection and its route.

    What is refused before it has arrived is let flow past where little was announced, so that a client which
    writes all before it reads gets the answer; else the connection is closed after the answer.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, idle_timeout_s: float, discard_bytes: int
    ) -> None:
        announced = Headers(scope=scope).get("content-length", "")
        self._is_little = announced.isdecimal() and int(announced[:20]) <= discard_bytes
        self._receive = receive
        self._send = send
        self._idle_timeout_s = idle_timeout_s
        self._complete = False

    async def receive(self) -> Message:
        """The next message. Raises BodyTimeout where nothing comes for long."""
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                message = await self._receive()
        except TimeoutError:
            raise BodyTimeout("The upload stands still; send it again.") from None
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass the answer on."""
        if message["type"] == "http.response.start" and not self._complete and not self._is_little:
            MutableHeaders(scope=message)["Connection"] = "close"
        await self._send(message)
