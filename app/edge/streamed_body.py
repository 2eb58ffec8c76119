"""The body of an upload: large, but held to a minimum rate and a total time, and cut off once refused."""

import asyncio
import contextlib
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from sds_clip.app.content_type import MULTIPART, media_type
from sds_clip.app.errors import BodyTimeout, UploadTimeout, UploadTooSlow

STREAMED = frozenset([("POST", "/datasets")])
"""Routes that write a form's files to disk as they arrive, with their own limits."""
LINGER_S = 2.0
"""How long a refused upload is still read after the answer."""


def is_streamed(scope: Scope) -> bool:
    """Whether a request is an upload. The route's JSON requests have the limits of every other body."""
    return (scope["method"], scope["path"]) in STREAMED and media_type(Headers(scope=scope)) == MULTIPART


def announced_bytes(scope: Scope) -> int:
    """The length of a body by its header, or -1 if that has none."""
    announced = Headers(scope=scope).get("content-length", "")
    # 20 digits are more than any limit, and int() refuses numbers of thousands of digits.
    return int(announced[:20]) if announced.isdecimal() else -1


@dataclass(eq=False)
class StreamedBody:
    """Stands between an upload's connection and its route.

    The client may keep the server waiting for `grace_s`. Each byte that arrives adds `1 / min_bytes_per_s` to
    what is left of that time, up to `grace_s`. Time during which the server is busy does not count.

    If the upload is refused before it has arrived and its announced length is small, the rest is discarded,
    so that a client that writes everything before it reads can receive the answer. Otherwise the connection
    is closed soon after the answer.
    """

    _scope: Scope
    _receive: Receive
    _send: Send
    grace_s: float
    min_bytes_per_s: int
    max_time_s: float
    discard_bytes: int
    _complete: bool = False
    _is_cut_off: bool = False

    def __post_init__(self) -> None:
        self._is_little = 0 <= announced_bytes(self._scope) <= self.discard_bytes
        self._left_s = self.grace_s
        self._deadline = _now() + self.max_time_s

    async def receive(self) -> Message:
        """The next message. Raises BodyTimeout (upload_too_slow, upload_timeout)."""
        if self._complete:
            return await self._receive()
        since = _now()
        try:
            async with asyncio.timeout_at(min(since + self._left_s, self._deadline)):
                message = await self._receive()
        except TimeoutError:
            raise self._timeout() from None
        credit_s = len(message.get("body", b"")) / self.min_bytes_per_s
        self._left_s = min(self.grace_s, self._left_s - (_now() - since) + credit_s)
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._complete and not self._is_little:
            MutableHeaders(scope=message)["Connection"] = "close"
            self._is_cut_off = True
        if self._is_cut_off and message["type"] == "http.response.body" and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _linger(self) -> None:
        """Read on for a moment, until a proxy or a client that has the answer closes the connection.

        If it were closed here with bytes unread, the system would reset it, and the answer could be lost.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await self._receive()).get("more_body", False):
                    pass

    def _timeout(self) -> BodyTimeout:
        if _now() >= self._deadline:
            return UploadTimeout(
                f"The upload took longer than {self.max_time_s:g} s; send less at once, or use a faster "
                "connection.",
            )
        return UploadTooSlow(
            f"The upload stopped or was slower than {self.min_bytes_per_s} bytes per second; send it again over "
            "a faster connection.",
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
