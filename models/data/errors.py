"""Errors about training data."""

from typing import ClassVar

from models.errors import ModelError


class DataError(ModelError):
    """Training data cannot be used as given. The message names the item and the remedy."""

    code: ClassVar[str] = "bad_data"
