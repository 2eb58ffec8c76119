"""What can be wrong with a benchmark's data."""

from models.errors import ModelError


class EvaluationError(ModelError):
    """A benchmark cannot be run as given; the message names the file, the line and the remedy."""

    code = "invalid_benchmark"
