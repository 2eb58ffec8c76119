"""API keys: who may call the service, and for what.

`create_key` writes the keys to a JSON file, which holds only their SHA-256 hashes:

    {"keys": [{"name": "phone", "sha256": "...", "scopes": ["infer"]}]}

Every route declares `Depends(requires(scope))` or `Depends(public)`. The service does not start if a route
declares neither. Without a keys file everything is allowed, but only to programs on this machine
(`check_binding`, `app.guard`).
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import fastapi.routing
from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant

from app.errors import ConfigurationError, MissingScope, Unauthorized
from app.guard import LOOPBACK_HOSTS
from app.keys import Caller, KeyRing, Scope
from app.settings import Settings

_LOOPBACK_BINDINGS = LOOPBACK_HOSTS | {"::1"}


def install(app: FastAPI, settings: Settings) -> None:
    """Load the API keys into `app`, from the file that the settings name.

    Raises: ConfigurationError when the keys file cannot be used.
    """
    app.state.key_ring = None if settings.keys_file is None else KeyRing(settings.keys_file)


def check_binding(settings: Settings) -> None:
    """Raise ConfigurationError if a service without keys would be reachable from other machines."""
    if settings.keys_file is None and settings.host.lower() not in _LOOPBACK_BINDINGS:
        raise ConfigurationError(
            f"Without keys, anyone could use the service on {settings.host}. Create a key with "
            "`sds-clip keys create NAME` and serve with --keys-file, or listen on 127.0.0.1."
        )


def requires(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency that admits only keys with `scope`, and returns the caller."""

    async def check(request: Request) -> Caller:
        ring: KeyRing | None = request.app.state.key_ring
        if ring is None:
            return Caller()
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        key = ring.find(secret.strip()) if kind.lower() == "bearer" else None
        if key is None:
            raise Unauthorized("Send a valid API key as `Authorization: Bearer KEY`.")
        request.state.key = key  # for the count of throttled requests
        if scope not in key.scopes:
            raise MissingScope(f"This key lacks the scope {scope}; use a key that has it.")
        return Caller(key.name, frozenset(key.scopes))

    check.declared_access = scope  # type: ignore[attr-defined]
    return check


async def public() -> None:
    """A dependency that says: anybody may call this route."""


public.declared_access = "public"  # type: ignore[attr-defined]


def assert_every_route_declares(app: FastAPI) -> None:
    """Raise ConfigurationError if a route declares neither a scope nor `public`.

    Only FastAPI's own documentation pages are exempt: they show nothing that the source does not.
    """
    exempt = {app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url}
    for path, _, access in declared(app):
        if access is None and path not in exempt:
            raise ConfigurationError(f"{path} declares neither a scope nor `public`; see app.auth.")


def declared(app: FastAPI) -> Iterator[tuple[str, set[str], str | None]]:
    """The path and methods of each route, and what it declares: a scope, "public", or None if it declares nothing."""
    for route in _routes(app):
        dependant: Dependant | None = getattr(route, "dependant", None)
        calls = () if dependant is None else _calls(dependant)
        access = next((call.declared_access for call in calls if hasattr(call, "declared_access")), None)
        yield getattr(route, "path", repr(route)), getattr(route, "methods", None) or set(), access


def _routes(app: FastAPI) -> Iterator[Any]:
    # Newer versions of FastAPI keep included routers nested; `iter_route_contexts` lists the routes inside.
    flatten: Callable[[Sequence[Any]], Iterator[Any]] = getattr(fastapi.routing, "iter_route_contexts", iter)
    return flatten(app.routes)


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)
