"""The keys file: `create_key` and `delete_key` change it, and `KeyRing` reads it and notices changes."""

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from sds_clip.app.errors import ConfigurationError, MissingScope
from sds_clip.models.atomic import write_atomic
from sds_clip.models.validation import explain, first_problem, json_problem

logger = logging.getLogger(__name__)

Scope = Literal["infer", "train", "admin"]
SCOPES: tuple[str, ...] = get_args(Scope)
PREFIX = "sdsclip_"
RECHECK_S = 1.0


@dataclass(frozen=True)
class Caller:
    """Who sent a request: the name of the key, which is also the owner of what it makes.

    The name is "" without a keys file, when any program on this machine may do everything.
    """

    name: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)
    shares: bool = False
    """Whether all keys share one workspace."""

    @property
    def is_admin(self) -> bool:
        return "admin" in self.scopes

    @property
    def sees(self) -> str | None:
        """The owner whose records the caller sees and changes, or None for those of all owners."""
        return None if self.shares or self.is_admin else self.name

    def check(self, scope: Scope, what: str, *, param: str | None = None) -> None:
        """Raise Forbidden unless the caller has `scope`. `what` names the action that needs it."""
        if scope not in self.scopes:
            raise MissingScope(
                f"{what} needs a key with the scope {scope}; this key lacks it.",
                param=param,
            )


class Key(BaseModel):
    """An API key, stored only as its hash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    expires_at: AwareDatetime | None = None
    """Releases before this field refuse a file in which a key has it, and keep the keys that they know."""


class KeysFile(BaseModel):
    """The content of the keys file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: list[Key]


class KeyRing:
    """The keys of a file, which is read again within a second of a change.

    If the changed file is broken, the old keys stay in force. A key that has expired is not found.

    Raises: ConfigurationError if the file cannot be read at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._keys = read_keys(path)
        self._checked_s = time.monotonic()

    def find(self, secret: str) -> Key | None:
        """The key that matches `secret`, or None."""
        return self.find_hash(_digest(secret))

    def find_hash(self, sha256: str) -> Key | None:
        """The key that has this hash, or None.

        Every entry is compared, in time that does not depend on the hash.
        """
        found = self._entry(sha256)
        return None if found is None or self._has_expired(found) else found

    def expiry_of(self, secret: str) -> datetime | None:
        """When the key that matches `secret` has expired, or None if there is no such key, or it has not."""
        found = self._entry(_digest(secret))
        return None if found is None or not self._has_expired(found) else found.expires_at

    def _has_expired(self, key: Key) -> bool:
        return key.expires_at is not None and key.expires_at.timestamp() <= time.time()

    def _entry(self, sha256: str) -> Key | None:
        self._refresh()
        found: Key | None = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, sha256):
                found = key
        return found

    def has(self, name: str) -> bool:
        """Whether there is a key of this name."""
        self._refresh()
        return any(key.name == name for key in self._keys)

    def _refresh(self) -> None:
        now_s = time.monotonic()
        if now_s - self._checked_s < RECHECK_S:
            return
        self._checked_s = now_s
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except ConfigurationError as error:
            logger.error("The changed keys file cannot be used. The old keys stay valid. Reason: %s", error)
        else:
            logger.info("The keys file was read again. It has %d keys.", len(self._keys))


def create_key(path: Path, name: str, scopes: Sequence[str], expires_at: datetime | None = None) -> str:
    """Add a key to the file, creating the file if necessary, and return the key, which is stored nowhere.

    Raises: ConfigurationError for a name in use, an unknown scope, or a file that cannot be used.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    try:
        key = Key(
            name=name, sha256=_digest(secret), scopes=list(dict.fromkeys(scopes)), expires_at=expires_at
        )
    except ValidationError as error:
        if first_problem(error)["loc"][0] == "name":
            raise ConfigurationError(
                f"The name {name!r} is not allowed; use 1 to 64 letters, digits, dots, dashes or underscores."
            ) from None
        raise ConfigurationError(f"A key needs at least one of the scopes {', '.join(SCOPES)}.") from None
    with _locked(path):
        keys = read_keys(path) if path.exists() else []
        if any(each.name == name for each in keys):
            raise ConfigurationError(f"{path} already has a key named {name}; choose another name.")
        _write(path, KeysFile(keys=[*keys, key]))
    return secret


def delete_key(path: Path, name: str) -> None:
    """Remove a key from the file. Raises ConfigurationError for an unknown name or a file that cannot be used."""
    with _locked(path):
        keys = read_keys(path)
        kept = [key for key in keys if key.name != name]
        if len(kept) == len(keys):
            raise ConfigurationError(f"{path} has no key named {name}; `sds-clip keys list` shows the names.")
        _write(path, KeysFile(keys=kept))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other programs from changing the file meanwhile. Its folder is locked, since the file is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_keys(path: Path) -> list[Key]:
    """The keys of the file. Raises ConfigurationError for a file that cannot be used."""
    try:
        return KeysFile.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        # The error's own text would repeat the file's content.
        problem = first_problem(error)
        form = 'A keys file has the form {"keys": [{"name": ..., "sha256": ..., "scopes": [...]}]}.'
        if problem["type"] == "json_invalid":
            raise ConfigurationError(f"{path} is not valid JSON {json_problem(problem)}. {form}") from None
        field = ".".join(str(part) for part in problem["loc"])
        what = f"{field}: {explain(problem)}" if field else explain(problem)
        raise ConfigurationError(f"{path} is not a valid keys file. {what} {form}") from None


def _write(path: Path, file: KeysFile) -> None:
    """Replace the file atomically: a reader sees the old one or the new one. Only its owner may read it."""
    write_atomic(
        path, json.dumps(file.model_dump(mode="json", exclude_none=True), indent=2) + "\n", mode=0o600
    )
