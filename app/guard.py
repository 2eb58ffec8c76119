"""Without API keys the service is for this machine alone: no foreign name, and no web page, may reach it.

Binding loopback keeps other machines out. A browser on this machine is the way around: a page can send
requests to 127.0.0.1, under its own Origin, or under its own Host by re-pointing its name (DNS rebinding).
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Forbidden
from app.responses import error_response

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class GuardHost:
    """Answers Forbidden to a Host that is not this machine, and to requests made by other sites' pages."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Sequence[str]) -> None:
        self._app = app
        self._allowed = LOOPBACK_HOSTS | {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what comes from here."""
        if scope["type"] == "http" and (reason := self._refusal(Headers(scope=scope))):
            await error_response(Forbidden(reason))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> str | None:
        if _hostname(f"//{headers.get('host', '')}") not in self._allowed:
            return "The Host is not this machine; set SDS_CLIP_ALLOWED_HOSTS, or use API keys."
        origin = headers.get("origin")
        if origin is not None and _hostname(origin) not in self._allowed:
            return "The Origin is another site; use API keys to serve web pages."
        if headers.get("sec-fetch-site") == "cross-site":
            return "The request was made by another site's page; use API keys to serve web pages."
        return None


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
