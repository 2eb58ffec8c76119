"""The names that an alias may have."""

import re

from app.errors import InvalidAlias
from models.references import DEMO, is_version

DEFAULT = "default"
"""The alias or model of a request that names none."""
RESERVED = frozenset({"status", DEMO})
"""GET /models/status would hide GET /models/{alias}, and `demo` is a model's reference."""

ALIAS_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def may_be_alias(name: str) -> bool:
    return re.match(ALIAS_PATTERN, name) is not None and not is_version(name) and name not in RESERVED


def check_alias(name: str) -> None:
    """Raise InvalidRequest for a name that would be taken for something else."""
    if is_version(name) or name in RESERVED:
        raise InvalidAlias(
            f"{name[:64]} cannot be the name of an alias, because it has another meaning; choose another name.",
            param="alias",
        )
