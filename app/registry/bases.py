"""The allow-list of base models: a delta's own description cannot make the service download a model."""

from collections.abc import Iterable
from typing import ClassVar

from models.references import DEMO, CheckpointError, canonical


class BaseNotAllowed(CheckpointError):
    """The base of a delta is not among the models that the operator allows, and not published here."""

    code: ClassVar[str] = "base_not_allowed"


class AllowedBases:
    """The references that may be loaded: the operator's, and the demo model, which is in the repository."""

    def __init__(self, references: Iterable[str]) -> None:
        self._references = frozenset([DEMO, *map(canonical, references)])

    def check(self, reference: str, version: str) -> None:
        """Raise BaseNotAllowed if `reference` is not listed. `version` is used in the message."""
        if canonical(reference) not in self._references:
            raise BaseNotAllowed(
                f"Version {version[:12]} is {reference}, which is neither served nor published here nor on the "
                "operator's list: serve it with --model, or put it on SDS_CLIP_ALLOWED_MODELS."
            )
