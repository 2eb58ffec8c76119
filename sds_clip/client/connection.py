"""The service's address, reading its responses, and when to retry a call."""

import os
from typing import Any

import httpx
from httpx_sse import SSEError

from sds_clip.client.errors import APIError, ClientError, ConnectionFailed, ServerError, of_status

DEFAULT_URL = "http://127.0.0.1:8000"
# Longer than the service's own deadline, so that the service can say what took too long.
TIMEOUT_S = 90.0
CONNECT_TIMEOUT_S = 10.0
# The service sends a heartbeat every 15 s, so a stream silent for longer is dead.
STREAM_TIMEOUT = httpx.Timeout(60.0, connect=CONNECT_TIMEOUT_S)

MAX_ATTEMPTS = 5
# For a longer Retry-After the caller decides whether to wait.
MAX_PAUSE_S = 60.0
# First pause after a lost response; doubled for each further attempt.
LOST_PAUSE_S = 0.5
# How long the service may be unreachable while a job is followed: longer than a restart that loads a model.
PATIENCE_S = 120.0
RECONNECT_PAUSE_S = 1.0


def options(url: str | None, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Arguments for httpx's clients; defaults from SDS_CLIP_URL and SDS_CLIP_API_KEY.

    Raises: ClientError for a key that no service has made.
    """
    key = (api_key or os.environ.get("SDS_CLIP_API_KEY") or "").strip()
    if not (key.isascii() and key.isprintable()):  # httpx's own error would show the key
        raise ClientError("The API key (SDS_CLIP_API_KEY) holds a character that no key has.")
    return {
        "base_url": url or os.environ.get("SDS_CLIP_URL") or DEFAULT_URL,
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
    }


def without_password(url: httpx.URL) -> httpx.URL:
    """The URL as messages may show it."""
    return url.copy_with(userinfo=b"")


def with_wait(timeout: httpx.Timeout, wait_s: float) -> httpx.Timeout:
    """The timeout of a call that the service may answer only after a wait."""
    read_s = None if timeout.read is None else timeout.read + wait_s
    return httpx.Timeout(connect=timeout.connect, read=read_s, write=timeout.write, pool=timeout.pool)


def checked(response: httpx.Response) -> httpx.Response:
    """Return the response. Raises APIError for an error response, whose body must have been read."""
    if response.is_success:
        return response
    try:
        error = response.json()["error"]
        message, code = str(error["message"]), error["code"]
    except (ValueError, KeyError, TypeError):  # for example a proxy's answer
        error, code = {}, None
        url = without_password(response.url)
        message = f"{url} answered {response.status_code} {response.reason_phrase}".rstrip()
    retry_after = response.headers.get("retry-after", "")
    raise of_status(response.status_code)(
        message,
        code=code,
        status=response.status_code,
        param=error.get("param"),
        index=error.get("index"),
        request_id=response.headers.get("x-request-id"),
        retry_after_s=float(retry_after) if retry_after.isdecimal() else None,
    )


def json_of(response: httpx.Response) -> dict[str, Any]:
    """Parse a response as JSON. Raises ServerError if it is something else, for example from a proxy."""
    try:
        content: dict[str, Any] = response.json()
    except ValueError:
        raise ServerError(
            f"The answer of {without_password(response.url)} is not JSON. Check that the URL is that of an SDS-CLIP "
            "service.",
            status=response.status_code,
        ) from None
    return content


def failure(error: httpx.TransportError, url: httpx.URL) -> ClientError:
    """Return the client's error for one of httpx's."""
    url = without_password(url)
    if isinstance(error, SSEError):
        return ServerError(
            f"{url} did not answer with an event stream ({error}). Check that the URL is that of an SDS-CLIP service."
        )
    reason = (str(error) or type(error).__name__).rstrip(".")
    if isinstance(error, httpx.UnsupportedProtocol):
        return ConnectionFailed(
            f"{url} is not the URL of a service. It must begin with http:// or https://.", reached=False
        )
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ConnectionFailed(
            f"{url} cannot be reached ({reason}). Start the service with `sds-clip up`, or give the URL of a running "
            "one (--url, SDS_CLIP_URL or Client(url)).",
            reached=False,
        )
    return ConnectionFailed(f"{url} broke off before its answer was complete: {reason}.", reached=True)


def retry_pause_s(error: ClientError, attempt: int, max_attempts: int) -> float | None:
    """Seconds to wait before an idempotent call is retried, or None if it should not be.

    Lost responses are retried with exponential backoff. A 429 or 503 is retried after its Retry-After;
    without that header there is no reason to expect that waiting helps.
    """
    if attempt >= max_attempts:
        return None
    if isinstance(error, ConnectionFailed):
        return LOST_PAUSE_S * 2 ** (attempt - 1) if error.reached else None
    if error.retry_after_s is None or error.retry_after_s > MAX_PAUSE_S:
        return None
    return (
        error.retry_after_s if error.status in (429, 503) or error.code == "idempotency_in_flight" else None
    )


def reconnect_pause_s(error: ClientError, away_s: float) -> float:
    """Seconds to wait before reconnecting to a job's events. Raises the error if reconnecting cannot help."""
    hopeless = isinstance(error, APIError) and error.retry_after_s is None
    if hopeless or away_s > PATIENCE_S:
        raise error
    return error.retry_after_s or RECONNECT_PAUSE_S
