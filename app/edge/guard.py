"""Keeps web pages away from a service without keys, which only programs on this machine may use.

A page in the user's browser can send requests to localhost, and with DNS rebinding it can do so under its own
host name. Such a request is recognised by a foreign Host, by an Origin, or by Sec-Fetch-Site.
"""

import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sds_clip.app.edge.responses import ErrorResponse
from sds_clip.app.errors import Forbidden, ForeignHost, ForeignOrigin

LOOPBACK_HOSTS = frozenset(["localhost", "127.0.0.1", "[::1]"])

_AUTHORITY = r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
_HOST = re.compile(_AUTHORITY)
_ORIGIN = re.compile("(?P<scheme>https?)://" + _AUTHORITY)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class GuardHost:
    """Refuses requests that a foreign web page could have sent, with 403."""

    def __init__(
        self, app: ASGIApp, *, allowed_hosts: Iterable[str] = (), allowed_origins: Iterable[str] = ()
    ) -> None:
        """`allowed_origins` are the pages that may call the service all the same."""
        self._app = app
        self._origins = frozenset(allowed_origins)
        self._hosts = LOOPBACK_HOSTS | {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (self._app if refusal is None else ErrorResponse(refusal))(scope, receive, send)

    def _refusal(self, headers: Headers) -> Forbidden | None:
        host, origins = _host(headers), headers.getlist("origin")
        if host is None or host["host"] not in self._hosts:
            return ForeignHost(
                "A service without keys does not accept this Host; use localhost, or add the host to "
                "SDS_CLIP_ALLOWED_HOSTS.",
            )
        if len(origins) == 1 and origins[0] in self._origins:
            return None
        if is_foreign(headers):
            return ForeignOrigin(
                "A web page of another origin cannot use a service without keys; start the service with a keys "
                "file.",
            )
        return None


def is_foreign(headers: Headers) -> bool:
    """Whether a web page of another site or origin sent the request, as far as the browser's headers tell."""
    host, origins = _host(headers), headers.getlist("origin")
    same_origin = not origins or (
        len(origins) == 1 and host is not None and _is_same_origin(origins[0].lower(), host)
    )
    return not same_origin or headers.get("sec-fetch-site") == "cross-site"


def _host(headers: Headers) -> re.Match[str] | None:
    # Duplicates are refused: this check and later code could each read a different one of two values.
    hosts = headers.getlist("host")
    return _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None


def _is_same_origin(origin: str, host: re.Match[str]) -> bool:
    """Whether the page came from this service. The origin "null" never did."""
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        return False
    default = _DEFAULT_PORTS[found["scheme"]]
    return found["host"] == host["host"] and (found["port"] or default) == (host["port"] or default)
