"""Errors of the losses."""

from typing import ClassVar

from models.errors import ModelError


class LossError(ModelError):
    """An unknown option of a loss, or inputs that do not belong together."""

    code: ClassVar[str] = "bad_loss"
