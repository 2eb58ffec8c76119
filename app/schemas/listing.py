"""What lists have in common."""

from typing import Literal

from pydantic import BaseModel, Field


class Listing(BaseModel):
    """One page of a list. Events and metrics are in ascending order, and all others are newest first."""

    object: Literal["list"] = "list"
    has_more: bool = Field(
        description="Whether more items follow. To read them, pass the id of the last item as `after` (for "
        "metrics, its step; for samples and items, its index)."
    )


class Deleted(BaseModel):
    """Confirms that something was deleted."""

    id: str
    object: Literal["model", "dataset"]
    deleted: Literal[True] = True
