"""Column values: JSON that every database accepts, bounded texts, ids, hashes."""

import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from typing import Any

MAX_MESSAGE_CHARS = 2000
MAX_DATA_BYTES = 16 * 1024


def new_id(prefix: str) -> str:
    """A random id that cannot be guessed: `job_5f0c...`."""
    return f"{prefix}_{secrets.token_hex(12)}"


def dumps(value: Any) -> str:
    """JSON in ASCII, of any Mapping. NaN and infinities become null, because JSON has neither."""
    try:
        return json.dumps(value, allow_nan=False, default=dict)
    except ValueError:
        return json.dumps(finite(value), allow_nan=False)


def finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def payload_hash(kind: str, request: Mapping[str, Any]) -> str:
    """SHA-256 of a request, independent of the order of its keys."""
    text = json.dumps([kind, request], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def bounded_message(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"


def bounded_data(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The data, or a note instead if it exceeds MAX_DATA_BYTES: an event must not make a job fail."""
    if data is None:
        return None
    size = len(dumps(data))
    return dict(data) if size <= MAX_DATA_BYTES else {"left_out_bytes": size}


def lock_number(*parts: str) -> int:
    """A 63-bit number for PostgreSQL's advisory locks, derived from the name of what is locked."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).digest()[:8]) >> 1
