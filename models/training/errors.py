"""Errors that keep a fine-tuning run from starting, or stop it."""

from __future__ import annotations

from typing import ClassVar

from models.errors import ModelError


class ConfigError(ModelError):
    """A configuration that contradicts itself, or does not fit what it names."""

    code: ClassVar[str] = "bad_configuration"


class TrainingError(ModelError):
    """Training cannot go on. The last good checkpoint is kept."""

    code: ClassVar[str] = "training_failed"


class CheckpointTooLargeError(TrainingError):
    """A single checkpoint is larger than everything that a run may keep."""

    code: ClassVar[str] = "checkpoint_too_large"


class NotFiniteError(TrainingError):
    """`count` losses or gradients are infinite or NaN."""

    def __init__(self, message: str, count: int = 1) -> None:
        super().__init__(message)
        self.count = count
