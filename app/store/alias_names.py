"""The names that an alias may have."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from sds_clip.app.errors import InvalidAlias
from sds_clip.models.checkpoints.references import DEMOS, is_version

DEFAULT = "default"
"""The alias or model of a request that names none."""
RESERVED: Mapping[str, str] = MappingProxyType(
    {"status": "GET /models/status is another route"}
    | {name: f"`{name}` is the reference of a demo model" for name in DEMOS}
)
"""The names that mean something else, and what they mean."""

ALIAS_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def may_be_alias(name: str) -> bool:
    return re.match(ALIAS_PATTERN, name) is not None and not is_version(name) and name not in RESERVED


def check_alias(name: str) -> None:
    """Raise InvalidRequest for a name that would be taken for something else."""
    meaning = "it has the form of a version's id" if is_version(name) else RESERVED.get(name)
    if meaning is not None:
        raise InvalidAlias(
            f"{name[:64]} cannot be the name of an alias, because {meaning}; choose another name.",
            param="alias",
        )
