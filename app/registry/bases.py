"""The allow-list of base models: a delta's own description cannot make the service download a model."""

from collections.abc import Iterable
from typing import ClassVar

from sds_clip.models.checkpoints.references import DEMOS, canonical
from sds_clip.models.errors import CheckpointError


class BaseNotAllowed(CheckpointError):
    """The base of a delta is neither a model that the operator allows nor a version published here."""

    code: ClassVar[str] = "base_not_allowed"


class AllowedBases:
    """The references that may be loaded: the operator's, and the demo models, which are in the repository."""

    def __init__(self, references: Iterable[str]) -> None:
        self._references = frozenset([*DEMOS, *map(canonical, references)])

    def check(self, reference: str, version: str) -> None:
        """Raise BaseNotAllowed if `reference` is not listed. `version` is used in the message."""
        if canonical(reference) not in self._references:
            raise BaseNotAllowed(
                f"Version {version[:12]} is {reference}, which is not served, not published here and not on "
                "the operator's list; serve it with --model, or add it to SDS_CLIP_ALLOWED_MODELS."
            )
