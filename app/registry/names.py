"""Names that aliases may have."""

from app.errors import InvalidRequest
from app.jobs.named_models import DEMO
from app.registry.ports import is_version

RESERVED = frozenset({"status", DEMO})
"""GET /models/status is another thing than GET /models/{alias}, and `demo` is a model's reference."""


def check_alias(name: str) -> None:
    """Raise InvalidRequest for a name that would be taken for something else."""
    if is_version(name) or name in RESERVED:
        raise InvalidRequest(
            f"{name[:64]} cannot be an alias's name, since it means something else; choose another.",
            code="invalid_alias",
            param="alias",
        )
