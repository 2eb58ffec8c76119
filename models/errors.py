"""Errors that several modules of `models` raise. The other errors are defined in the module that raises them.

Callers of `models` translate them at their edge. `code` is for programs, and docs/reference/errors.md lists every one.
"""

from typing import ClassVar


class ModelError(ValueError):
    """An option or another value cannot be used; the message says which one, and what to do."""

    code: ClassVar[str] = "invalid_input"


class CheckpointError(ModelError):
    """A checkpoint cannot be found, read or trusted; the message names what is wrong and what to do."""

    code = "bad_checkpoint"


class DataError(ModelError):
    """Training data cannot be used as given; the message names the item and the remedy."""

    code = "bad_data"


class TeacherError(ModelError):
    """A diffusion model cannot be found, read or used as teacher; the message says what to do."""

    code = "bad_teacher"


class LossError(ModelError):
    """A loss has an unknown option, or inputs that do not belong together."""

    code = "bad_loss"


class EvaluationError(ModelError):
    """A benchmark cannot be run as given; the message names the file, the line and the remedy."""

    code = "invalid_benchmark"


class VectorsError(ModelError):
    """Images cannot be embedded, or embeddings cannot be searched, as asked; the message says what to do."""

    code = "bad_vectors"


class ConfigError(ModelError):
    """The configuration of a run contradicts itself, or does not fit what it names."""

    code = "bad_configuration"


class TrainingError(ModelError):
    """Training cannot go on; the last good checkpoint is kept."""

    code = "training_failed"


class CheckpointTooLargeError(TrainingError):
    """A single checkpoint is larger than everything that a run may keep."""

    code = "checkpoint_too_large"


class NotFiniteError(TrainingError):
    """`count` losses or gradients are infinite or NaN."""

    def __init__(self, message: str, count: int = 1) -> None:
        super().__init__(message)
        self.count = count


def quoted(value: object) -> str:
    """Return a value as Python writes it, cut to 80 characters for use in a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def first_line(error: BaseException) -> str:
    """Return the first line of an error, cut to 300 characters for use in a message."""
    return (str(error).strip().splitlines() or [""])[0][:300]
