"""Errors about benchmarks and their data."""

from models.errors import ModelError


class EvaluationError(ModelError):
    """A benchmark cannot be run as given. The message names the file, the line and the remedy."""

    code = "invalid_benchmark"
