"""Why a fine-tuning run cannot start, or had to stop."""

from __future__ import annotations

from typing import ClassVar

from models.errors import ModelError


class ConfigError(ModelError):
    """A configuration that contradicts itself, or does not fit what it names."""

    code: ClassVar[str] = "bad_configuration"


class TrainingError(ModelError):
    """Training cannot go on; the last good checkpoint is kept."""

    code: ClassVar[str] = "training_failed"


class CheckpointTooLargeError(TrainingError):
    """One checkpoint alone is larger than all that a run may keep."""

    code: ClassVar[str] = "checkpoint_too_large"


class NotFiniteError(TrainingError):
    """A loss or a gradient is infinite or not a number; `count` of them are."""

    def __init__(self, message: str, count: int = 1) -> None:
        super().__init__(message)
        self.count = count
