"""API keys: who may call the service, and for what.

`create_key` writes the keys to a JSON file, which holds only their SHA-256 hashes:

    {"keys": [{"name": "phone", "sha256": "...", "scopes": ["infer"]}]}

Every route declares `Depends(requires(scope, ...))` or `Depends(public)`. The service does not start if a route
declares neither. Without a keys file everything is allowed, but only to programs on this machine
(`check_binding`, `app.guard`).
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import fastapi.routing
from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from starlette.datastructures import Headers
from starlette.types import Scope as ASGIScope

from app.errors import ConfigurationError, InvalidRequest, MissingScope, Unauthorized
from app.guard import LOOPBACK_HOSTS
from app.keys import Caller, Key, KeyRing, Scope
from app.settings import Settings

_LOOPBACK_BINDINGS = LOOPBACK_HOSTS | {"::1"}


def install(app: FastAPI, settings: Settings) -> None:
    """Load the API keys into `app`, from the file that the settings name.

    Raises: ConfigurationError when the keys file cannot be used.
    """
    app.state.key_ring = None if settings.keys_file is None else KeyRing(settings.keys_file)
    app.state.shared_workspace = settings.shared_workspace


def check_binding(settings: Settings) -> None:
    """Raise ConfigurationError if a service without keys would be reachable from other machines."""
    if settings.keys_file is None and settings.host.lower() not in _LOOPBACK_BINDINGS:
        raise ConfigurationError(
            f"Without keys, anyone could use the service on {settings.host}. Create a key with "
            "`sds-clip keys create NAME` and serve with --keys-file, or listen on 127.0.0.1."
        )


def identify(scope: ASGIScope, ring: KeyRing) -> Key | None:
    """The key that a request was sent with. It is looked up once for each request."""
    state = scope.setdefault("state", {})
    if "key" not in state:
        kind, _, secret = Headers(scope=scope).get("authorization", "").partition(" ")
        state["key"] = ring.find(secret.strip()) if kind.lower() == "bearer" else None
    key: Key | None = state["key"]
    return key


def requires(*scopes: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency that admits only keys with one of `scopes`, and returns the caller."""
    needed = " or ".join(scopes)

    async def check(request: Request) -> Caller:
        ring: KeyRing | None = request.app.state.key_ring
        if ring is None:
            return Caller()
        key = identify(request.scope, ring)
        if key is None:
            raise Unauthorized("Send a valid API key as `Authorization: Bearer KEY`.")
        if set(scopes).isdisjoint(key.scopes):
            raise MissingScope(f"This key lacks the scope {needed}; use a key that has it.")
        return Caller(key.name, frozenset(key.scopes), shares=request.app.state.shared_workspace)

    check.declared_access = scopes  # type: ignore[attr-defined]
    return check


def is_revoked(request: Request, caller: Caller) -> bool:
    """Whether the caller's key was removed, or lost a scope, since its request was admitted."""
    ring: KeyRing | None = request.app.state.key_ring
    if ring is None:
        return False
    request.scope["state"].pop("key", None)
    key = identify(request.scope, ring)
    return key is None or not caller.scopes <= set(key.scopes)


def check_key(request: Request, name: str) -> None:
    """Raise InvalidRequest unless there is a key of this name, or there are no keys at all."""
    ring: KeyRing | None = request.app.state.key_ring
    if ring is not None and not ring.has(name):
        raise InvalidRequest(f"There is no key named {name[:64]}; send the name of a key.", param="owner")


async def public() -> None:
    """A dependency that says: anybody may call this route."""


public.declared_access = ()  # type: ignore[attr-defined]


def assert_every_route_declares(app: FastAPI) -> None:
    """Raise ConfigurationError if a route declares neither a scope nor `public`.

    Only FastAPI's own documentation pages are exempt: they show nothing that the source does not.
    """
    exempt = {app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url}
    for path, _, access in declared(app):
        if access is None and path not in exempt:
            raise ConfigurationError(f"{path} declares neither a scope nor `public`; see app.auth.")


def declared(app: FastAPI) -> Iterator[tuple[str, set[str], tuple[Scope, ...] | None]]:
    """The path and methods of each route, and its scopes, of which one is enough.

    A public route has no scopes, and a route that declares nothing has None.
    """
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
