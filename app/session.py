"""The session of a browser: a sealed cookie that stands for an API key, which no page then has to keep.

The cookie holds the key's hash, by which the key ring finds the key, and a CSRF token. Fernet encrypts and
authenticates both, with the time. Nothing is stored but the secret, which the processes of a data folder share.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from filelock import FileLock
from starlette.datastructures import Headers

from app.threads import in_own_thread
from models.atomic import write_atomic

COOKIE = "sds_clip_session"
SECRET_FILE = "session.key"
"""In the data folder. If it is lost, everyone has to sign in again, and it is made anew."""
READ_WAIT_S = 2.0
"""How long a cookie that does not open waits for the secret to be read again."""


@dataclass(frozen=True)
class Session:
    """What a cookie holds."""

    key_sha256: str
    csrf_token: str
    expires_at: float


class Sessions:
    """Seals and opens cookies with the secret of the data folder.

    The secret is kept in memory, so that a data folder that does not respond holds up no session. It is read again, in
    a thread, if a cookie does not open, because another process may have made it since. While it cannot be read, the
    one in memory stays in force.
    """

    def __init__(
        self, secret_file: Path, *, lifetime_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.lifetime_s = max(1, int(lifetime_s))
        self._secret_file = secret_file
        self._clock = clock
        self._fernet: Fernet | None = None
        self._reading: asyncio.Task[None] | None = None

    def start(self, key_sha256: str) -> tuple[str, Session]:
        """A new session and its cookie. The first one makes the secret. Raises OSError."""
        now, csrf_token = int(self._clock()), secrets.token_urlsafe(32)
        self._fernet = fernet = self._read() or self._made()
        cookie = fernet.encrypt_at_time(f"{key_sha256} {csrf_token}".encode(), now).decode()
        return cookie, Session(key_sha256, csrf_token, now + self.lifetime_s)

    async def open(self, cookie: str) -> Session | None:
        """The session of a cookie, or None if it has expired or was not sealed with the secret."""
        session = self._opened(cookie.encode())
        if session is None:
            await self._read_again()
            session = self._opened(cookie.encode())
        return session

    def has_expired(self, session: Session) -> bool:
        return int(self._clock()) > session.expires_at

    async def _read_again(self) -> None:
        """Read the secret. Whoever asks meanwhile waits for the same reading: anybody can send garbage."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._renew())
        await asyncio.wait([self._reading], timeout=READ_WAIT_S)

    async def _renew(self) -> None:
        self._fernet = await in_own_thread(self._read, "read session key") or self._fernet

    def _opened(self, cookie: bytes) -> Session | None:
        if self._fernet is None:
            return None
        try:
            sealed = self._fernet.decrypt_at_time(cookie, self.lifetime_s, int(self._clock()))
        except InvalidToken:
            return None
        key_sha256, _, csrf_token = sealed.decode().partition(" ")
        return Session(key_sha256, csrf_token, self._fernet.extract_timestamp(cookie) + self.lifetime_s)

    def _read(self) -> Fernet | None:
        """None if there is no secret that can be used."""
        try:
            return Fernet(self._secret_file.read_bytes())
        except (OSError, ValueError):
            return None

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
