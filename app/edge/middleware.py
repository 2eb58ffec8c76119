"""The middleware around every request: an id, a log line, a guard against browsers, limits on bodies."""

import asyncio
import logging
import random
import re
import time

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sds_clip.app import logs
from sds_clip.app.budgets import Budget, Rate
from sds_clip.app.edge.guard import GuardHost
from sds_clip.app.edge.limit_key import PROBES, REFUSALS_PER_S, LimitKey
from sds_clip.app.edge.responses import CLIENT_CLOSED_REQUEST, ErrorResponse
from sds_clip.app.edge.streamed_body import StreamedBody, is_streamed
from sds_clip.app.edge.time_shares import SHARE_OF_TIME, TimeShares
from sds_clip.app.errors import BodyTimeout, BodyTooLarge, BuffersFull, KeyLimitReached, ServiceError
from sds_clip.app.keys import Key
from sds_clip.app.metrics import Metrics
from sds_clip.app.settings import Settings

access_logger = logging.getLogger("app.access")

UNMATCHED = "unmatched"
# A client's id is put into logs and response headers, so only harmless characters are accepted.
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
BODY_TIMEOUT_S = 30.0
"""A body must arrive within this time. An upload may fall this far behind its minimum rate."""
MIN_UPLOAD_BYTES_PER_S = 65_536
MAX_UPLOAD_TIME_S = 6 * 3600.0
_RETRY_AFTER_S = 1
# After the answer, the server discards an unread body of up to this many times the limit. A client that
# writes everything before it reads can then receive the answer. Above it the connection is closed.
_DISCARD_FACTOR = 4


def install(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    # The middleware that is added last is the outermost.
    if settings.keys_file is not None:
        per_s = settings.max_requests_per_s_per_key
        # Inside LimitBody, which handles the unread body of a refused request.
        app.add_middleware(
            LimitKey,
            in_progress=Budget(None, limit="max_requests_per_key", per_key=settings.max_requests_per_key),
            requests=Rate(per_s),
            refusals=Rate(REFUSALS_PER_S),
            body_bytes=Rate(settings.max_body_bytes_per_s_per_key),
            given_up=Rate(per_s / 10),
            shares=TimeShares(Rate(SHARE_OF_TIME)),
        )
    budget = Budget(
        settings.max_buffered_bytes,
        limit="max_buffered_bytes_per_key",
        per_key=settings.max_buffered_bytes_per_key,
        full=_buffers_full,
    )
    app.state.body_budget = budget
    app.add_middleware(
        LimitBody,
        budget=budget,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=BODY_TIMEOUT_S,
        min_upload_bytes_per_s=MIN_UPLOAD_BYTES_PER_S,
        max_upload_time_s=MAX_UPLOAD_TIME_S,
    )
    if settings.keys_file is None:
        app.add_middleware(
            GuardHost, allowed_hosts=settings.allowed_hosts, allowed_origins=settings.cors_origins
        )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )
    app.add_middleware(AccessLog, metrics=metrics)
    app.add_middleware(RequestId)


class RequestId:
    """Gives every request an id, which is put in `scope`, in the logs and in the answer.

    The client's own id is used if it is well-formed. Every answer also forbids browsers to guess its media type, and
    caches to keep it, unless its route says how long it may be kept.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        token = logs.request_id.set(request_id)
        try:
            await self._app(scope, receive, sending)
        finally:
            logs.request_id.reset(token)


class AccessLog:
    """Writes one log line and counts one answer per request.

    The line shows the route's pattern in place of the path, and no query, body or key.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            client = scope.get("client")
            fields = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "duration_ms": round(1000 * seconds, 3),
                "bytes_in": bytes_in,
                "client": None if client is None else client[0],
            }
            error = scope.get("state", {}).get("error")
            if error is not None:
                fields |= {"code": error.code, "param": error.param, "index": error.index}
                if status == 429:
                    key = scope["state"].get("key")
                    limit = error.limit if isinstance(error, KeyLimitReached) else error.code
                    self._metrics.throttled(limit)
                    fields["key"] = None if key is None else key.name  # in the log alone: /metrics is public
            # Machines ask these routes every few seconds.
            level = logging.DEBUG if route in PROBES and status < 400 else logging.INFO
            access_logger.log(level, "%s %s %d", scope["method"], route, status, extra={"fields": fields})


class LimitBody:
    """Limits a body's size and the time that it takes to arrive, and the size of all bodies together.

    Only bytes that have arrived count, so an announced length alone cannot fill the budget.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        budget: Budget,
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
        """Refuse a body without reading it if its announced length is too large.

        Others count until the request ends.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if is_streamed(scope):
            await self._pass_on(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        # 20 digits are more than any limit, and int() refuses numbers of thousands of digits.
        if announced.isdecimal() and int(announced[:20]) > self._max_body_bytes:
            absurd = int(announced[:20]) > _DISCARD_FACTOR * self._max_body_bytes
            headers = {"Connection": "close"} if absurd else None
            await ErrorResponse(self._too_large(), headers)(scope, receive, send)
            return
        body = _Body(
            scope, receive, self._budget, self._max_body_bytes, self._body_timeout_s, self._too_large()
        )
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.release()

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a body that is written to disk as it arrives.

        It does not count towards this budget, and has its own limits.
        """
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
            f"The body is too large; at most {self._max_body_bytes} bytes are allowed. Send less in one request."
        )


class _Body:
    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        budget: Budget,
        max_bytes: int,
        timeout_s: float,
        too_large: BodyTooLarge,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._budget = budget
        self._max_bytes = max_bytes
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        self._too_large = too_large
        self._held_bytes = 0
        self._complete = False

    async def receive(self) -> Message:
        """The next message, within the limits. Once the body is complete, nothing more is limited."""
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

    @property
    def _key(self) -> str:
        key: Key | None = self._scope.get("state", {}).get("key")
        return "" if key is None else key.name

    def release(self) -> None:
        self._budget.give_back(self._held_bytes, self._key)
        self._held_bytes = 0

    def _hold(self, size_bytes: int) -> None:
        if self._held_bytes + size_bytes > self._max_bytes:
            raise self._too_large
        self._budget.take(size_bytes, self._key)
        self._held_bytes += size_bytes


def _buffers_full(used: int, total: int) -> ServiceError:
    return BuffersFull(
        "The server is receiving too much data at the moment; try again.", retry_after_s=_RETRY_AFTER_S
    )
