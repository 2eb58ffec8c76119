"""What happens around every request: an id, a log line, the guard against browsers, the limits on bodies."""

import asyncio
import logging
import random
import re
import time

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.errors import BodyTimeout, BodyTooLarge, Unavailable
from app.guard import GuardHost
from app.metrics import Metrics
from app.responses import CLIENT_CLOSED_REQUEST, error_response
from app.settings import Settings
from app.streamed_body import StreamedBody, is_streamed

access_logger = logging.getLogger("app.access")

UNMATCHED = "unmatched"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_RETRY_AFTER_S = 1
# An unread body of up to this many times the limit is let flow past after the answer (the server discards it),
# so that a client which writes all before it reads gets the answer; over it the connection is cut.
_DISCARD_FACTOR = 4


def install(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Put the middleware around `app`; the last added is the outermost."""
    budget = BodyBudget(settings.max_buffered_bytes)
    app.state.body_budget = budget
    app.add_middleware(
        LimitBody,
        budget=budget,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
        min_upload_bytes_per_s=settings.min_upload_bytes_per_s,
        max_upload_time_s=settings.max_upload_time_s,
    )
    if settings.keys_file is None:
        app.add_middleware(GuardHost, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(AccessLog, metrics=metrics)
    app.add_middleware(RequestId)


class RequestId:
    """Gives every request an id, the caller's own where it is sane: in `scope`, the logs and the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the id for the time of the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        token = logs.request_id.set(request_id)
        try:
            await self._app(scope, receive, sending)
        finally:
            logs.request_id.reset(token)


class AccessLog:
    """One line and one count an answer. The route's pattern stands for the path; no query, body or key."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch the request go by."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = CLIENT_CLOSED_REQUEST
        bytes_in = 0

        async def receiving() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except Exception:
            status = 500
            raise
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", UNMATCHED)
            self._metrics.request(route, status, seconds)
            fields = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "duration_ms": round(1000 * seconds, 3),
                "bytes_in": bytes_in,
            }
            access_logger.info("%s %s %d", scope["method"], route, status, extra={"fields": fields})


class BodyBudget:
    """How many bytes of bodies all requests together hold; touched by the event loop alone."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0


class LimitBody:
    """Bounds a body's bytes and the time that it takes to arrive, and the bytes of all bodies together.

    Counts what has arrived, not what is announced: an announcement alone cannot fill the budget.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        budget: BodyBudget,
        max_body_bytes: int,
        body_timeout_s: float,
        min_upload_bytes_per_s: int,
        max_upload_time_s: float,
    ) -> None:
        self._app = app
        self._budget = budget
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._min_upload_bytes_per_s = min_upload_bytes_per_s
        self._max_upload_time_s = max_upload_time_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse an announced excess unread; count the rest, and forget it when the request is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if is_streamed(scope):
            await self._pass_on(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > self._max_body_bytes:
            absurd = int(announced[:20]) > _DISCARD_FACTOR * self._max_body_bytes
            headers = {"Connection": "close"} if absurd else None
            await error_response(self._too_large(), headers)(scope, receive, send)
            return
        body = _Body(receive, self._budget, self._max_body_bytes, self._body_timeout_s, self._too_large())
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.release()

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What goes to the disk as it arrives counts for nothing here; its route has limits of its own."""
        body = StreamedBody(
            scope,
            receive,
            send,
            grace_s=self._body_timeout_s,
            min_bytes_per_s=self._min_upload_bytes_per_s,
            max_time_s=self._max_upload_time_s,
            discard_bytes=_DISCARD_FACTOR * self._max_body_bytes,
        )
        await self._app(scope, body.receive, body.send)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body is too large; {self._max_body_bytes} bytes at most are allowed. Send less at once."
        )


class _Body:
    """One request's body on its way in."""

    def __init__(
        self,
        receive: Receive,
        budget: BodyBudget,
        max_bytes: int,
        timeout_s: float,
        too_large: BodyTooLarge,
    ) -> None:
        self._receive = receive
        self._budget = budget
        self._max_bytes = max_bytes
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        self._too_large = too_large
        self._held_bytes = 0
        self._complete = False

    async def receive(self) -> Message:
        """The next message, within the limits; once the body is there, nothing is limited any more."""
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise BodyTimeout("The body did not arrive in time; send it again, or send less.") from None
        self._hold(len(message.get("body", b"")))
        self._complete = not message.get("more_body", False)
        return message

    def release(self) -> None:
        """Give back what the body held."""
        self._budget.used_bytes -= self._held_bytes
        self._held_bytes = 0

    def _hold(self, size_bytes: int) -> None:
        if self._held_bytes + size_bytes > self._max_bytes:
            raise self._too_large
        if self._budget.used_bytes + size_bytes > self._budget.max_bytes:
            raise Unavailable(
                "Too many bodies are being received; try again.",
                code="buffers_full",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._budget.used_bytes += size_bytes
        self._held_bytes += size_bytes
