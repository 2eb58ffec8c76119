"""What lists have in common."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, Field


class Listing(BaseModel):
    """One page of a list. Events and metrics are in ascending order, and all others are newest first."""

    object: Literal["list"] = "list"
    has_more: bool = Field(
        description="Whether more items follow. To read them, pass the id of the last item as `after` (for "
        "metrics, its step; for samples and items, its index)."
    )

    @classmethod
    def of(cls, found: Sequence[Any], limit: int) -> Self:
        """A page of the first ones. One more than `limit` was looked for."""
        return cls.model_validate({"data": list(found[:limit]), "has_more": len(found) > limit})


class Deleted(BaseModel):
    """Confirms that something was deleted."""

    id: str
    object: Literal["model", "dataset"]
    deleted: Literal[True] = True
