"""Errors as answers: the one place that turns an exception into the one error body."""

import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app import errors
from app.errors import (
    BodyTimeout,
    InternalError,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    ServiceError,
    Unauthorized,
)

logger = logging.getLogger(__name__)

HTTP_ERRORS: dict[int, type[ServiceError]] = {400: MalformedBody, 404: NotFound, 405: MethodNotAllowed}
CLIENT_GONE = 499


def error_response(error: ServiceError) -> Response:
    """The error's status, body and headers."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, BodyTimeout):
        headers["Connection"] = "close"
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(errors.body(error), error.status, headers)


def install_error_handlers(app: FastAPI) -> None:
    """Have `app` answer every exception with the one error body."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)


def internal_error(error: Exception) -> Response:
    """Log what nobody foresaw, and answer without its details."""
    logger.error("a request failed", exc_info=error)
    return error_response(
        InternalError("Something went wrong here; the server's log has it under the request id.")
    )


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return error_response(error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(invalid_request(error.errors()))


def invalid_request(problems: list[Any]) -> InvalidRequest:
    """The first of pydantic's problems as an InvalidRequest; a union's branches are told as one."""
    problems = [problem for problem in problems if problem["type"] != "bytes_type"] or problems
    first = problems[0]
    location = [part for part in first["loc"] if part not in ("body", "query", "path")]
    index = next((part for part in location if isinstance(part, int)), None)
    param = str(location[0]) if location else None
    same = [problem["msg"] for problem in problems if problem["loc"][:1] == first["loc"][:1]]
    message = "; or: ".join(dict.fromkeys(same[:4])).removeprefix("Value error, ")
    more = len(problems) - len(same)
    suffix = f" ({more} more problems in other fields)" if more else ""
    return InvalidRequest(f"{param or 'The body'}: {message}.{suffix}", param=param, index=index)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = HTTP_ERRORS.get(error.status_code, InternalError)
    message = {
        404: "There is no such route; see /docs.",
        405: "The route takes another method; see /docs.",
    }.get(error.status_code, str(error.detail))
    response = error_response(kind(message))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
