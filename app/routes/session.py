"""POST, GET and DELETE /session: a browser signs in with an API key, and from then on sends a cookie in its place."""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from sds_clip.app.bodies import reads
from sds_clip.app.edge.auth import (
    check_session,
    identify,
    key_expired,
    public,
    refuse_other_origins,
    unauthorized,
)
from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.edge.session import Session, Sessions, cookie_in, set_cookie
from sds_clip.app.errors import (
    ForeignOrigin,
    Unauthorized,
    Unavailable,
    WrongCsrfToken,
)
from sds_clip.app.keys import Key, KeyRing
from sds_clip.app.routes.shared import BODY
from sds_clip.app.schemas.session import SessionInfo, SessionKey, SignIn
from sds_clip.app.threads import in_own_thread

WRONG_KEY_WAIT_S = 1.0
MAX_BODY_BYTES = 4096

router = APIRouter(tags=["session"], dependencies=[Depends(public)], responses=describe_errors(ForeignOrigin))


@router.post(
    "/session",
    responses=describe_errors(*BODY, Unauthorized, Unavailable),
)
async def sign_in(
    request: Request,
    response: Response,
    body: Annotated[SignIn, Depends(reads(SignIn, form=False, max_bytes=MAX_BODY_BYTES))],
) -> SessionInfo:
    """Sign in with an API key. The answer sets a cookie that stands for the key, and has the session's CSRF token.

    The answer to a wrong key takes a second.
    """
    ring: KeyRing | None = request.app.state.key_ring
    if ring is None:
        return _info(None)
    refuse_other_origins(request)
    key = ring.find(body.key)
    if key is None:
        await asyncio.sleep(WRONG_KEY_WAIT_S)
        if (expired := ring.expiry_of(body.key)) is not None:
            raise key_expired(expired)
        raise Unauthorized("There is no such API key; check the key, and sign in again.", param="key")
    sessions: Sessions = request.app.state.sessions
    cookie, session = await in_own_thread(partial(sessions.start, key.sha256), "sign in")
    _send_cookie(request, response, cookie, sessions.lifetime_s)
    return _info(ring, key, session)


@router.get("/session")
async def get_session(request: Request, response: Response) -> SessionInfo:
    """Say whether the caller may use the service, and for what. A cookie that no longer holds is removed."""
    ring: KeyRing | None = request.app.state.key_ring
    if ring is None:
        return _info(None)
    key = await identify(request.scope, ring)
    session = check_session(request)
    if key is None and cookie_in(request.headers) is not None:
        _send_cookie(request, response, "", 0)
    return _info(ring, key, session)


@router.delete(
    "/session", responses=describe_errors(ForeignOrigin, Unauthorized, WrongCsrfToken, Unavailable)
)
async def sign_out(
    request: Request,
    response: Response,
    everywhere: Annotated[
        bool, Query(description="End all sessions of the key, in every browser, and copies of their cookies.")
    ] = False,
) -> SessionInfo:
    """Sign out: the answer removes the cookie. Within a session, X-CSRF-Token is needed as for every change."""
    ring: KeyRing | None = request.app.state.key_ring
    if ring is None:
        return _info(None)
    key = await identify(request.scope, ring)
    check_session(request)
    if everywhere:
        if key is None:
            raise unauthorized(request, ring)
        sessions: Sessions = request.app.state.sessions
        await in_own_thread(partial(sessions.end_all, key.sha256), "end sessions")
    _send_cookie(request, response, "", 0)
    return _info(ring)


def _send_cookie(request: Request, response: Response, value: str, max_age_s: int) -> None:
    is_secure = request.url.scheme == "https"
    response.headers["Set-Cookie"] = set_cookie(value, max_age_s=max_age_s, is_secure=is_secure)


def _info(ring: KeyRing | None, key: Key | None = None, session: Session | None = None) -> SessionInfo:
    return SessionInfo(
        needs_key=ring is not None,
        signed_in=ring is None or key is not None,
        key=None if key is None else SessionKey.model_validate(key),
        csrf_token=None if session is None else session.csrf_token,
        expires_at=None if session is None else session.expires_at,
    )
