"""Errors of the exact part. Whoever calls `models` translates them at its edge."""

from typing import ClassVar


class ModelError(ValueError):
    """Something a caller gave to `models` cannot be used; the message says what to do about it."""

    code: ClassVar[str] = "invalid_input"
