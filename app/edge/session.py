"""The session of a browser: a sealed cookie that stands for an API key, which no page then has to keep.

The cookie holds the key's hash, by which the key ring finds the key, and a CSRF token. Fernet encrypts and
authenticates both, with the time. Nothing is stored but the secret, and how often all sessions of a key were ended. The
processes of a data folder share both.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from filelock import FileLock
from pydantic import TypeAdapter
from starlette.datastructures import Headers

from sds_clip.app.errors import Unavailable
from sds_clip.app.threads import in_own_thread
from sds_clip.models.atomic import write_atomic

logger = logging.getLogger(__name__)

COOKIE = "sds_clip_session"
SECRET_FILE = "session.key"
"""In the data folder. If it is lost, everyone has to sign in again, and it is made anew."""
ENDED_SUFFIX = ".ended"
"""Beside the secret, in JSON: how often all sessions of a key were ended, by the key's hash."""
READ_WAIT_S = 2.0
"""How long a cookie waits for these files to be read again."""
RECHECK_S = 1.0

_ENDED = TypeAdapter(dict[str, int])


@dataclass(frozen=True)
class Session:
    """What a cookie holds."""

    key_sha256: str
    csrf_token: str
    expires_at: float
    generation: int = 0
    """How often all sessions of the key had been ended before this one began."""


class Sessions:
    """Seals and opens cookies with the secret of the data folder.

    Secret and endings are kept in memory, so that a data folder that does not respond holds up nobody for long. They
    are read again, in a thread, every second, and if a cookie does not open, because another process may have changed
    them. While they cannot be read, those in memory stay in force. A process that could never read them opens no
    session. Endings are counted, since the clocks of hosts differ, and a count never goes back.
    """

    def __init__(
        self, secret_file: Path, *, lifetime_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.lifetime_s = max(1, int(lifetime_s))
        self._secret_file = secret_file
        self._ended_file = secret_file.with_suffix(ENDED_SUFFIX)
        self._clock = clock
        self._fernet: Fernet | None = None
        self._ended: Mapping[str, int] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._began_s = -RECHECK_S

    def start(self, key_sha256: str) -> tuple[str, Session]:
        """A new session and its cookie. The first one makes the secret. Raises Unavailable, OSError."""
        now, csrf_token = int(self._clock()), secrets.token_urlsafe(32)
        self._fernet = fernet = self._read() or self._made()
        self._keep(self._read_ended())
        generation = self._generation(key_sha256)
        if generation > 0:  # a part of the token, so that programs of the release before can open the cookie
            csrf_token += f".{generation}"
        cookie = fernet.encrypt_at_time(f"{key_sha256} {csrf_token}".encode(), now).decode()
        return cookie, Session(key_sha256, csrf_token, now + self.lifetime_s, generation)

    def end_all(self, key_sha256: str) -> None:
        """End all sessions of a key. Other processes notice within a second. Raises Unavailable, OSError."""
        with FileLock(f"{self._secret_file}.lock", mode=0o600):
            ended = dict(self._read_ended())
            ended[key_sha256] = max(ended.get(key_sha256, 0), self._generation(key_sha256)) + 1
            write_atomic(self._ended_file, json.dumps(ended), mode=0o600)
        self._keep(ended)

    async def open(self, cookie: str) -> Session | None:
        """The session of a cookie, or None if it has ended or was not sealed with the secret."""
        if self._is_stale():
            await self._read_again()
        session = self._opened(cookie.encode())
        if session is None:
            await self._read_again()
            session = self._opened(cookie.encode())
        return session

    def has_ended(self, session: Session) -> bool:
        """Whether a session that was open has expired or was ended since. It is called on the event loop."""
        if self._is_stale():
            self._begin_reading()
        is_former = session.generation != self._generation(session.key_sha256)
        return is_former or int(self._clock()) > session.expires_at

    def _is_stale(self) -> bool:
        return time.monotonic() - self._began_s >= RECHECK_S

    async def _read_again(self) -> None:
        """Read the files. Whoever asks meanwhile waits for the same reading: anybody can send garbage."""
        reading = self._begin_reading()
        left_s = self._began_s + READ_WAIT_S - time.monotonic()
        await asyncio.wait([reading], timeout=max(0.0, left_s))

    def _begin_reading(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._began_s = time.monotonic()
            self._reading = asyncio.create_task(self._renew())
        return self._reading

    async def _renew(self) -> None:
        try:
            fernet, ended = await in_own_thread(lambda: (self._read(), self._read_ended()), "read sessions")
        except Unavailable:
            return
        self._fernet = fernet or self._fernet
        self._keep(ended)

    def _generation(self, key_sha256: str) -> int:
        return 0 if self._ended is None else self._ended.get(key_sha256, 0)

    def _keep(self, ended: Mapping[str, int]) -> None:
        known = self._ended or {}
        self._ended = {key: max(known.get(key, 0), ended.get(key, 0)) for key in {*known, *ended}}

    def _opened(self, cookie: bytes) -> Session | None:
        if self._fernet is None or self._ended is None:
            return None
        try:
            sealed = self._fernet.decrypt_at_time(cookie, self.lifetime_s, int(self._clock()))
        except InvalidToken:
            return None
        key_sha256, _, csrf_token = sealed.decode().partition(" ")
        _, _, generation = csrf_token.partition(".")
        expires_at = self._fernet.extract_timestamp(cookie) + self.lifetime_s
        session = Session(key_sha256, csrf_token, expires_at, int(generation or 0))
        return session if session.generation == self._generation(key_sha256) else None

    def _read(self) -> Fernet | None:
        """None if there is no secret that can be used."""
        try:
            return Fernet(self._secret_file.read_bytes())
        except (OSError, ValueError):
            return None

    def _read_ended(self) -> Mapping[str, int]:
        """Raises: Unavailable. The log then says what to do."""
        try:
            return _ENDED.validate_json(self._ended_file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.error(
                "%s cannot be read (%s). Remove it together with %s; everyone then signs in again.",
                self._ended_file, error, self._secret_file.name,
            )  # fmt: skip
            raise Unavailable(
                "The server cannot read which sessions were ended; its log tells the operator what to do.",
                retry_after_s=10,
            ) from error

    def _made(self) -> Fernet:
        """Make the secret, unless another process has just done so."""
        self._secret_file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._secret_file}.lock", mode=0o600):
            fernet = self._read()
            if fernet is None:
                secret = Fernet.generate_key()
                write_atomic(self._secret_file, secret, mode=0o600)
                fernet = Fernet(secret)
            return fernet


def cookie_in(headers: Headers) -> str | None:
    """The value of a session's cookie. The one with the longest path, which browsers send first, is this service's."""
    for pair in headers.get("cookie", "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def set_cookie(value: str, *, max_age_s: int, is_secure: bool) -> str:
    """A Set-Cookie header of an answer from /session.

    It names no path. The cookie then holds for all that the browser sees beside /session, and so also below the path of
    a reverse proxy, which the service does not know.
    """
    secure = "; Secure" if is_secure else ""
    return f"{COOKIE}={value}; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}"
