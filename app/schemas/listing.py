"""What lists have in common."""

from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, Field

After = Annotated[
    str | None, Query(max_length=128, description="The id that the page starts after: the last one's before.")
]
Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]


class Listing(BaseModel):
    """A page; the newest first, unless they have numbers."""

    object: Literal["list"] = "list"
    has_more: bool = Field(description="Whether `after` the last of these there are more.")


class Deleted(BaseModel):
    """Something was deleted."""

    id: str
    object: Literal["model", "dataset"]
    deleted: Literal[True] = True
