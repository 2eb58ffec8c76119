"""What lists have in common."""

from typing import Literal

from pydantic import BaseModel, Field


class Listing(BaseModel):
    """A page; the newest first, unless they have numbers."""

    object: Literal["list"] = "list"
    has_more: bool = Field(description="Whether `after` the last of these there are more.")


class Deleted(BaseModel):
    """Something was deleted."""

    id: str
    object: Literal["model", "dataset"]
    deleted: Literal[True] = True
