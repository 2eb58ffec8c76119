"""The operator's list: no description, which a job may have written, makes the service fetch a model."""

from collections.abc import Iterable
from typing import ClassVar

from models.references import DEMO, CheckpointError, canonical


class BaseNotAllowed(CheckpointError):
    """Weights that are to be had by a reference that the operator has not listed."""

    code: ClassVar[str] = "base_not_allowed"


class AllowedBases:
    """What may be loaded by reference: the operator's, and the demo, which is in the repository."""

    def __init__(self, references: Iterable[str]) -> None:
        self._references = frozenset([DEMO, *map(canonical, references)])

    def check(self, reference: str, version: str) -> None:
        """Raise BaseNotAllowed for a reference to a version that is not listed."""
        if canonical(reference) not in self._references:
            raise BaseNotAllowed(
                f"Version {version[:12]} is {reference}, which is neither served nor published here nor on the "
                "operator's list: serve it with --model, or put it on SDS_CLIP_ALLOWED_MODELS."
            )
