"""API keys: who may call the service, and for what.

`create_key` writes the keys to a JSON file, which holds only their SHA-256 hashes:

    {"keys": [{"name": "phone", "sha256": "...", "scopes": ["infer"]}]}

Every route declares `Depends(requires(scope, ...))` or `Depends(public)`. The service does not start if a route
declares neither. Without a keys file everything is allowed, but only to programs on this machine
(`check_binding`, `sds_clip.app.edge.guard`).

A browser may send a session's cookie in place of the key (`sds_clip.app.edge.session`). Whatever holds for the key then
holds for the session.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from starlette.datastructures import Headers
from starlette.types import Scope as ASGIScope

from sds_clip.app.edge.guard import LOOPBACK_HOSTS, is_foreign
from sds_clip.app.edge.key_uses import FOLDER, KeyUses
from sds_clip.app.edge.session import SECRET_FILE, Session, Sessions, cookie_in
from sds_clip.app.errors import (
    ConfigurationError,
    ForeignOrigin,
    InvalidRequest,
    KeyExpired,
    MissingScope,
    SessionEnded,
    Unauthorized,
    WrongCsrfToken,
)
from sds_clip.app.keys import Caller, Key, KeyRing, Scope
from sds_clip.app.settings import Settings

CSRF_HEADER = "X-CSRF-Token"
LOOPBACK_BINDINGS = LOOPBACK_HOSTS | {"::1"}
_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})


def install(app: FastAPI, settings: Settings) -> None:
    """Load the API keys into `app`, from the file that the settings name.

    Raises: ConfigurationError when the keys file cannot be used.
    """
    app.state.key_ring = None if settings.keys_file is None else KeyRing(settings.keys_file)
    app.state.key_uses = KeyUses(settings.data_dir / FOLDER)
    app.state.sessions = Sessions(settings.data_dir / SECRET_FILE, lifetime_s=settings.session_hours * 3600)
    app.state.shared_workspace = settings.shared_workspace


def check_binding(settings: Settings) -> None:
    """Raise ConfigurationError if a service without keys would be reachable from other machines."""
    if settings.keys_file is None and settings.host.lower() not in LOOPBACK_BINDINGS:
        raise ConfigurationError(
            f"Without keys, anyone could use the service on {settings.host}. Create a key with "
            "`sds-clip keys create NAME` and serve with --keys-file, or listen on 127.0.0.1."
        )


async def identify(scope: ASGIScope, ring: KeyRing) -> Key | None:
    """The key that a request was sent with, or whose session it was sent in. It is looked up once for each request."""
    state = scope.setdefault("state", {})
    if "key" not in state:
        headers = Headers(scope=scope)
        authorization, cookie = headers.get("authorization"), cookie_in(headers)
        state["key"] = state["session"] = None
        if authorization is not None:
            secret = _bearer(authorization)
            state["key"] = None if secret is None else ring.find(secret)
        elif cookie is not None:
            sessions: Sessions = scope["app"].state.sessions
            session = await sessions.open(cookie)
            if session is not None and (found := ring.find_hash(session.key_sha256)) is not None:
                state["key"], state["session"] = found, session
        if state["key"] is not None:
            uses: KeyUses = scope["app"].state.key_uses
            uses.note(state["key"].sha256)
    key: Key | None = state["key"]
    return key


def _bearer(authorization: str) -> str | None:
    kind, _, secret = authorization.partition(" ")
    return secret.strip() if kind.lower() == "bearer" else None


def check_session(request: Request) -> Session | None:
    """The session in which a request was sent, if it was sent in one. `identify` has found it.

    Raises: ForeignOrigin, WrongCsrfToken for a request that a page of another origin could have made the browser send.
    """
    session: Session | None = request.scope["state"]["session"]
    if session is None:
        return None
    refuse_other_origins(request)
    token = request.headers.get(CSRF_HEADER, "")
    if request.method not in _CHANGES_NOTHING and not secrets.compare_digest(
        token.encode(), session.csrf_token.encode()
    ):
        raise WrongCsrfToken(
            f"A change in a session needs its CSRF token in the header {CSRF_HEADER}; GET /session returns it."
        )
    return session


def refuse_other_origins(request: Request) -> None:
    """Raise ForeignOrigin if a page of another origin sent the request, even of one on the same site."""
    if is_foreign(request.headers) or request.headers.get("sec-fetch-site") == "same-site":
        raise ForeignOrigin(
            "A web page of another origin cannot use a session; it must send an API key. If the page is the service's "
            "own, its proxy must pass on the Host header."
        )


def requires(*scopes: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency that admits only keys with one of `scopes`, and returns the caller."""
    needed = " or ".join(scopes)

    async def check(request: Request) -> Caller:
        ring: KeyRing | None = request.app.state.key_ring
        if ring is None:
            return Caller()
        key = await identify(request.scope, ring)
        if key is None:
            raise unauthorized(request, ring)
        check_session(request)
        if set(scopes).isdisjoint(key.scopes):
            raise MissingScope(f"This key lacks the scope {needed}; use a key that has it.")
        return Caller(key.name, frozenset(key.scopes), shares=request.app.state.shared_workspace)

    check.declared_access = scopes  # type: ignore[attr-defined]
    return check


def unauthorized(request: Request, ring: KeyRing) -> Unauthorized:
    """Why a request has no key that is valid."""
    authorization = request.headers.get("authorization")
    if authorization is None and cookie_in(request.headers) is not None:
        return SessionEnded("Your session has ended; sign in again.")
    secret = None if authorization is None else _bearer(authorization)
    if secret is not None and (expired := ring.expiry_of(secret)) is not None:
        return key_expired(expired)
    return Unauthorized("Send a valid API key as `Authorization: Bearer KEY`.")


def key_expired(at: datetime) -> KeyExpired:
    return KeyExpired(f"This API key expired at {at.isoformat()}; ask the server's operator for a new one.")


def is_revoked(request: Request, caller: Caller) -> bool:
    """Whether the caller's key was removed, expired or lost a scope, or its session ended, since it was admitted."""
    ring: KeyRing | None = request.app.state.key_ring
    if ring is None:
        return False
    key, session = request.scope["state"]["key"], request.scope["state"]["session"]
    sessions: Sessions = request.app.state.sessions
    if session is not None and sessions.has_ended(session):
        return True
    found = ring.find_hash(key.sha256)
    return found is None or not caller.scopes <= set(found.scopes)


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
            raise ConfigurationError(
                f"{path} declares neither a scope nor `public`; see sds_clip.app.edge.auth."
            )


def declared(app: FastAPI) -> Iterator[tuple[str, set[str], tuple[Scope, ...] | None]]:
    """The path and methods of each route, and its scopes, of which one is enough.

    A public route has no scopes, and a route that declares nothing has None.
    """
    for path, methods, calls in dependencies(app):
        yield path, methods, access_of(calls)


def access_of(calls: Iterable[Any]) -> tuple[Scope, ...] | None:
    """The scopes that the dependencies of a route declare, as in `declared`."""
    return next((call.declared_access for call in calls if hasattr(call, "declared_access")), None)


def dependencies(app: FastAPI) -> Iterator[tuple[str, set[str], Sequence[Any]]]:
    """The path and methods of each route, and the functions that it depends on."""
    for route in iter_route_contexts(app.routes):
        dependant: Dependant | None = getattr(route, "dependant", None)
        calls = [] if dependant is None else list(_calls(dependant))
        yield getattr(route, "path", repr(route)), getattr(route, "methods", None) or set(), calls


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)
