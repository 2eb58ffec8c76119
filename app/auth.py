"""API keys: hashed in a file, compared in constant time, with scopes; every route declares what it needs."""

import hashlib
import hmac
import ipaddress
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError

from app.errors import Forbidden, Unauthorized
from app.settings import Settings

logger = logging.getLogger(__name__)

Scope = Literal["infer", "train", "admin"]
PREFIX = "sdsclip_"
REREAD_S = 1.0
DECLARES_ACCESS = "declares_access"


class ConfigurationError(Exception):
    """Settings that would leave the service open, or that cannot be read."""


class Key(BaseModel):
    """One caller: the SHA-256 of the key, never the key."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: list[Scope]


class KeysFile(BaseModel):
    """The file: {"keys": [{"name", "sha256", "scopes"}]}."""

    keys: list[Key] = []


class Keys:
    """The keys of a file, read again when it changes; a broken edit leaves the old ones in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._checked_at = time.monotonic()
        self._modified = _modified(path)
        try:
            self._keys = _read(path)
        except (OSError, ValidationError) as error:
            raise ConfigurationError(
                f"The keys file {path} cannot be read; make it with `sds-clip keys create`."
            ) from error

    def find(self, key: str) -> Key | None:
        """The entry of a key. Takes as long whichever entry it is."""
        self._reread()
        digest = hashlib.sha256(key.encode()).hexdigest()
        found = None
        for entry in self._keys:
            if hmac.compare_digest(entry.sha256, digest):
                found = entry
        return found

    def _reread(self) -> None:
        now = time.monotonic()
        if now - self._checked_at < REREAD_S:
            return
        self._checked_at = now
        modified = _modified(self._path)
        if modified == self._modified:
            return
        self._modified = modified
        try:
            self._keys = _read(self._path)
        except (OSError, ValidationError):
            logger.error("the keys file %s cannot be read; the old keys stay in force", self._path)


def requires(scope: Scope) -> Callable[[Request], None]:
    """A dependency: the request carries a key with `scope`, or the service runs without keys."""

    def check(request: Request) -> None:
        keys: Keys | None = request.app.state.keys
        if keys is None:
            return
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        entry = keys.find(key.strip()) if kind.lower() == "bearer" else None
        if entry is None:
            raise Unauthorized("Send a valid API key as `Authorization: Bearer KEY`.")
        if scope not in entry.scopes:
            raise Forbidden(f"This key lacks the scope {scope!r}.")

    setattr(check, DECLARES_ACCESS, True)
    return check


def public() -> None:
    """A dependency: anybody may call this route."""


setattr(public, DECLARES_ACCESS, True)


def install(app: FastAPI, settings: Settings) -> None:
    """Give `app` its keys, and make sure that no route was left open by forgetting.

    Raises ConfigurationError for a keys file that cannot be read, RuntimeError for an undeclared route.
    """
    app.state.keys = None if settings.keys_file is None else Keys(settings.keys_file)
    for route in app.routes:
        if isinstance(route, APIRoute) and not any(
            hasattr(dependency.call, DECLARES_ACCESS) for dependency in route.dependant.dependencies
        ):
            raise RuntimeError(f"the route {route.path} declares neither a scope nor that it is public")


def check_binding(settings: Settings) -> None:
    """Refuse to listen beyond this machine without keys. Raises ConfigurationError."""
    if settings.keys_file is None and not _is_loopback(settings.host):
        raise ConfigurationError(
            f"Listening on {settings.host} would let anybody in: make a key with `sds-clip keys create NAME "
            "--scope infer` and pass --keys-file, or listen on 127.0.0.1."
        )


def create_key(path: Path, name: str, scopes: list[Scope]) -> str:
    """Add a key to the file, made if need be, and return it; only its hash is kept.

    Raises ConfigurationError for a name in use, or a file that is not a keys file.
    """
    try:
        keys = _read(path) if path.exists() else []
    except ValidationError as error:
        raise ConfigurationError(f"{path} is not a keys file.") from error
    if any(entry.name == name for entry in keys):
        raise ConfigurationError(f"{path} has a key named {name!r} already; choose another name.")
    key = PREFIX + secrets.token_urlsafe(32)
    keys.append(Key(name=name, sha256=hashlib.sha256(key.encode()).hexdigest(), scopes=scopes))
    _write(path, KeysFile(keys=keys).model_dump())
    return key


def _read(path: Path) -> list[Key]:
    return KeysFile.model_validate_json(path.read_bytes()).keys


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes files that their owner alone may read.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _modified(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
