"""Errors of the exact part. Callers of `models` translate them at their edge."""

from typing import ClassVar


class ModelError(ValueError):
    """Something that a caller gave to `models` cannot be used. The message says what to do about it."""

    code: ClassVar[str] = "invalid_input"
