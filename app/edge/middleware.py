"""The middleware around every request: an id, a log line, a guard against browsers, limits on bodies."""

import asyncio
import logging
import random
import re
import time
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sds_clip.app import logs
from sds_clip.app.budgets import Budget, Rate
from sds_clip.app.edge.guard import GuardHost
from sds_clip.app.edge.limit_key import PROBES, REFUSALS_PER_S, LimitKey
from sds_clip.app.edge.responses import CLIENT_CLOSED_REQUEST, ErrorResponse
from sds_clip.app.edge.streamed_body import StreamedBody, announced_bytes, is_streamed
from sds_clip.app.edge.time_shares import SHARE_OF_TIME, TimeShares
from sds_clip.app.errors import BodyTimeout, BodyTooLarge, BuffersFull, KeyLimitReached
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
        full=lambda used, total: BuffersFull(),
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
                    self._metrics.throttled(error.limit if isinstance(error, KeyLimitReached) else error.code)
                    fields["key"] = _key_name(scope) or None  # in the log alone: /metrics is public
            # Machines ask these routes every few seconds.
            level = logging.DEBUG if route in PROBES and status < 400 else logging.INFO
            access_logger.log(level, "%s %s %d", scope["method"], route, status, extra={"fields": fields})


@dataclass(eq=False)
class LimitBody:
    """Limits a body's size and the time that it takes to arrive, and the size of all bodies together.

    Only bytes that have arrived count, so an announced length alone cannot fill the budget.
    """

    app: ASGIApp
    budget: Budget
    max_body_bytes: int
    body_timeout_s: float
    min_upload_bytes_per_s: int
    max_upload_time_s: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a body without reading it if its announced length is too large."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if is_streamed(scope):
            await self._pass_on(scope, receive, send)
            return
        announced = announced_bytes(scope)
        if announced > self.max_body_bytes:
            absurd = announced > _DISCARD_FACTOR * self.max_body_bytes
            headers = {"Connection": "close"} if absurd else None
            await ErrorResponse(self._too_large(), headers)(scope, receive, send)
            return
        await self._limit(scope, receive, send)

    async def _limit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Limit a body as it arrives. It counts until the request ends."""
        deadline = asyncio.get_running_loop().time() + self.body_timeout_s
        held_bytes = 0
        complete = False

        async def receiving() -> Message:
            nonlocal held_bytes, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise BodyTimeout("The body did not arrive in time; send it again, or send less.") from None
            size_bytes = len(message.get("body", b""))
            if held_bytes + size_bytes > self.max_body_bytes:
                raise self._too_large()
            self.budget.take(size_bytes, _key_name(scope))
            held_bytes += size_bytes
            complete = not message.get("more_body", False)
            return message

        try:
            await self.app(scope, receiving, send)
        finally:
            self.budget.give_back(held_bytes, _key_name(scope))

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a body that is written to disk as it arrives.

        It does not count towards this budget, and has its own limits.
        """
        body = StreamedBody(
            scope,
            receive,
            send,
            grace_s=self.body_timeout_s,
            min_bytes_per_s=self.min_upload_bytes_per_s,
            max_time_s=self.max_upload_time_s,
            discard_bytes=_DISCARD_FACTOR * self.max_body_bytes,
        )
        await self.app(scope, body.receive, body.send)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body is too large; at most {self.max_body_bytes} bytes are allowed. Send less in one request."
        )


def _key_name(scope: Scope) -> str:
    key: Key | None = scope.get("state", {}).get("key")
    return "" if key is None else key.name
