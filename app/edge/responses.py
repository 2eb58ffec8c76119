"""The one place that turns errors into responses."""

import json
import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sds_clip.app import logs
from sds_clip.app.bodies import invalid_request
from sds_clip.app.errors import (
    BodyTimeout,
    InternalError,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    OutOfMemory,
    ServiceError,
    Unauthorized,
    body,
    log_cause,
)

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499  # not a standard status; nginx uses it for the same case

_UNFORESEEN = "An unexpected error occurred in the server; its log has the details under this request's id."


class ErrorResponse(Response):
    """The error body, with the headers that belong to the error.

    Below `/v2/` it has Cohere's shape, which has the fields at the top. Sending it tells the access log which error it
    was, by `request.state.error`.
    """

    def __init__(self, error: ServiceError, headers: Mapping[str, str] | None = None) -> None:
        # json.dumps writes ASCII, so a lone surrogate in a message cannot make the body unencodable.
        super().__init__(json.dumps(body(error)), error.status, headers, "application/json")
        self._error = error
        if error.retry_after_s is not None:
            self.headers["Retry-After"] = str(error.retry_after_s)
        if isinstance(error, Unauthorized):
            self.headers["WWW-Authenticate"] = "Bearer"
        if isinstance(error, BodyTimeout):
            self.headers["Connection"] = "close"
        if (request_id := logs.request_id.get()) is not None:
            self.headers["X-Request-Id"] = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["error"] = self._error
        if scope["path"].startswith("/v2/"):
            self.body = self.render(json.dumps({"id": logs.request_id.get(), **body(self._error)["error"]}))
            self.headers["Content-Length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of `app`, expected or not, with the same error body."""

    async def service_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        log_cause(error)
        # The request's state keeps the error. Its frames keep the body, and would until the garbage collector comes.
        error.__context__ = None
        return ErrorResponse(error.with_traceback(None))

    async def validation_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return ErrorResponse(invalid_request(error.errors()))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            methods = _methods(request)
            message = f"This route does not accept this method. It accepts: {methods}."
            return ErrorResponse(MethodNotAllowed(message), {"Allow": methods})
        if error.status_code == 404:
            return ErrorResponse(NotFound("This route does not exist; GET /openapi.json lists all routes."))
        # Starlette's message about a body describes its syntax and contains nothing of its content.
        return ErrorResponse(MalformedBody(f"The body cannot be read: {str(error.detail).rstrip('.')}."))

    async def client_gone(_: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)  # nothing is sent; the access log shows it

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(ClientDisconnect, client_gone)
    app.add_middleware(AnswerUnforeseen)


class AnswerUnforeseen:
    """Answers an unexpected error with a 500 without details, and lack of memory with a 503.

    The log has the traceback.

    A handler for Exception would run outside all middleware, without a request id or an access log line.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app. An answer that has begun cannot be replaced, so its error propagates."""
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            if isinstance(error, MemoryError):
                logger.error("The process ran out of memory.", exc_info=error)
                await ErrorResponse(OutOfMemory())(scope, receive, send)
                return
            logger.error("An unexpected error occurred.", exc_info=error)
            await ErrorResponse(InternalError(_UNFORESEEN))(scope, receive, send)


def _methods(request: Request) -> str:
    """All methods that the path accepts. Starlette's own error names only those of the first matching route."""
    return ", ".join(
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    )
