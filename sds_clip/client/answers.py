"""An answer of the service, or the error that it is."""

from typing import Any

import httpx

from sds_clip.client.errors import APIError, ConnectionFailed, ServerError, of_status


def checked(response: httpx.Response) -> httpx.Response:
    """The answer. Raises APIError for an error; its body must have been read."""
    if response.is_success:
        return response
    raise _error(response)


def json_of(response: httpx.Response) -> dict[str, Any]:
    """An answer's JSON. Raises ServerError for something else, which is somebody's between us and the service."""
    try:
        content: dict[str, Any] = response.json()
    except ValueError:
        raise ServerError(
            f"{response.url} answered with something that is not JSON; is it this service?",
            status=response.status_code,
        ) from None
    return content


def lost(error: httpx.TransportError, url: httpx.URL) -> ConnectionFailed:
    """No answer, in words."""
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
        return ConnectionFailed(
            f"{url} cannot be reached ({reason}); start the service with `sds-clip up`, or name its address.",
            reached=False,
        )
    return ConnectionFailed(f"{url} did not answer to the end: {reason}", reached=True)


def _error(response: httpx.Response) -> APIError:
    kind = of_status(response.status_code)
    try:
        error = response.json()["error"]
        message, code = str(error["message"]), error["code"]
    except (ValueError, KeyError, TypeError):  # somebody between us and the service
        error, code = {}, None
        message = f"{response.url} answered {response.status_code} {response.reason_phrase}".rstrip()
    return kind(
        message,
        code=code,
        status=response.status_code,
        param=error.get("param"),
        index=error.get("index"),
        request_id=response.headers.get("x-request-id"),
        retry_after_s=_seconds(response.headers.get("retry-after")),
    )


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
