"""GET /jobs/{id}/items and GET /jobs/{id}/comparison."""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

from sds_clip.app.schemas.common import Answer
from sds_clip.app.schemas.listing import Listing


class Flip(StrEnum):
    """How an item's outcome differs from that in the other evaluation."""

    RIGHT_TO_WRONG = "right_to_wrong"
    WRONG_TO_RIGHT = "wrong_to_right"
    CHANGED = "changed"
    SAME = "same"


class ItemScores(BaseModel):
    """How an item was scored."""

    outcomes: dict[str, bool] = Field(
        description="Whether the item is right, by outcome, such as `text`, `image`, `group` and `group_match`."
    )
    margins: dict[str, float] = Field(
        description="For each outcome, the smallest of the differences of scores that must be above 0; for "
        "`group_match`, their sum."
    )
    scores: list[list[float]] | None = Field(
        description="The raw scores of an item with two captions and two images, as `scores[caption][image]`. They are "
        "null for other items."
    )


class ItemInfo(ItemScores):
    """An item that a job has measured."""

    index: int = Field(description="The place of the item in the results. It counts from 0.")
    object: Literal["job.item"] = "job.item"
    id: str = Field(
        description="The item's id in the data. Retrieval has an item for each text and each image that is looked up."
    )
    benchmark: str
    tags: list[str]
    captions: list[str]
    images: list[str] = Field(
        description="The paths of the item's pictures on this server. It is empty if they are no longer there."
    )
    other: ItemScores | None = Field(
        description="How the other evaluation scored the item. It is null if none was named in `with`."
    )


class ItemList(Listing):
    """Items, in the order of the data set."""

    data: list[ItemInfo]


class PairedCountsInfo(Answer):
    """How many items are right in both evaluations, in this one alone, in the other alone, and in neither."""

    both: int
    gained: int
    lost: int
    neither: int


class DifferenceInfo(Answer):
    """This evaluation minus the other one in an outcome. All values are shares from 0 to 1."""

    baseline: float = Field(description="The share of right items in the other evaluation.")
    model: float = Field(description="The share of right items in this evaluation.")
    difference: float
    low: float = Field(description="The lower end of the 95 % bootstrap interval of the difference.")
    high: float = Field(description="The upper end of that interval.")
    chance: float | None = Field(description="The share that random scores reach, if it is known.")


class PairedDifferenceInfo(DifferenceInfo):
    """The same with McNemar's exact test. The p-values are not corrected for the number of tags."""

    counts: PairedCountsInfo
    p_better: float = Field(
        description="One-sided: the null hypothesis is that this evaluation is no better."
    )
    p_two_sided: float = Field(description="Two-sided: the null hypothesis is that both are equal.")


class MacroDifferenceInfo(DifferenceInfo):
    """The same for a mean over tags, which McNemar's test cannot judge."""

    metric: str
    tags: list[str]


class ComparisonInfo(Answer):
    """Two evaluations of the same items, paired item by item."""

    object: Literal["comparison"] = "comparison"
    benchmark: str
    outcome: str = Field(description="The outcome that the benchmark's primary figure is computed from.")
    outcomes: dict[str, PairedDifferenceInfo] = Field(
        description="Every outcome, over all items that have it."
    )
    by_tag: dict[str, dict[str, PairedDifferenceInfo]] = Field(
        description="The same by tag, over the items that have the tag."
    )
    macro: MacroDifferenceInfo | None = Field(
        description="The primary figure, if it is a mean over tags, else null."
    )
