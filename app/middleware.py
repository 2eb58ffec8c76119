"""What every request passes through, from the outside in: id, log line, body limits."""

import asyncio
import logging
import re
import time
import uuid

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.disconnect import CancelOnDisconnect
from app.errors import BodyTimeout, BodyTooLarge, ServiceError, Unavailable
from app.guard import GuardHost
from app.logs import request_id
from app.metrics import Metrics
from app.responses import CLIENT_GONE, error_response, internal_error
from app.settings import Settings

access = logging.getLogger("app.access")

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def install(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Wrap `app`; the last one added is the outermost."""
    app.add_middleware(
        LimitBody,
        max_body_bytes=settings.max_body_bytes,
        max_buffered_bytes=settings.max_buffered_bytes,
        timeout_s=settings.body_timeout_s,
    )
    app.add_middleware(CancelOnDisconnect)
    if settings.keys_file is None:
        app.add_middleware(GuardHost, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(Observe, metrics=metrics)


class Observe:
    """Gives a request its id, logs one line about it, and answers what nobody else caught."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        identity = given if SANE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        token = request_id.set(identity)
        started_at = time.monotonic()
        status = CLIENT_GONE

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = identity
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if status != CLIENT_GONE:
                raise
            await internal_error(error)(scope, receive, sending)
        finally:
            self._tell(scope, status, time.monotonic() - started_at)
            request_id.reset(token)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.request(route, status, seconds)
        access.info(
            "request",
            extra={
                "method": scope["method"],
                "route": route,
                "status": status,
                "duration_ms": round(1000 * seconds, 1),
            },
        )


class LimitBody:
    """Refuses bodies that are too large, too slow, or too many at once, before they fill the memory."""

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, max_buffered_bytes: int, timeout_s: float
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_buffered_bytes = max_buffered_bytes
        self._timeout_s = timeout_s
        self.buffered_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self, receive)
        try:
            length = Headers(scope=scope).get("content-length", "0")
            if length.isdigit():
                self._check(int(length))
            await self._app(scope, body.receive, send)
        except ServiceError as error:
            # The server throws away what still arrives of the body, so that the client gets to read this.
            await error_response(error)(scope, receive, send)
        finally:
            self.buffered_bytes -= body.bytes

    def _check(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise BodyTooLarge(
                f"The body is over the {self._max_body_bytes} bytes that are allowed; send fewer images."
            )
        if self.buffered_bytes + size > self._max_buffered_bytes:
            raise Unavailable("Too many large requests at once; send it again.", retry_after_s=1)


class _Body:
    """One request's body: counted as it arrives, against its own limit, the process's and the clock."""

    def __init__(self, limit: LimitBody, receive: Receive) -> None:
        self._limit = limit
        self._receive = receive
        self._deadline = time.monotonic() + limit._timeout_s
        self._complete = False
        self.bytes = 0

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise BodyTimeout(f"The body did not arrive within {self._limit._timeout_s:g} s.") from None
        size = len(message.get("body", b""))
        self._limit.buffered_bytes += size
        self.bytes += size
        if self.bytes > self._limit._max_body_bytes:
            self._limit._check(self.bytes)
        self._limit._check(0)
        self._complete = not message.get("more_body", False)
        return message
