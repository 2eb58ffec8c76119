"""Errors of the exact part. Callers of `models` translate them at their edge."""

from typing import ClassVar


class ModelError(ValueError):
    """Something that a caller gave to `models` cannot be used. The message says what to do about it."""

    code: ClassVar[str] = "invalid_input"


def first_line(error: BaseException) -> str:
    """Return the first line of an error, cut to 300 characters for use in a message."""
    return (str(error).strip().splitlines() or [""])[0][:300]
