"""POST /models/{version}/promote: what a dry run finds, or where the alias points."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from sds_clip.app.schemas.common import Answer, ErrorDetail
from sds_clip.app.schemas.finetune import Thresholds
from sds_clip.app.schemas.rollout import MovedAlias
from sds_clip.app.schemas.versions import LockInfo


class GateCheck(Answer):
    """One condition of the gate."""

    on: str = Field(description="The benchmark and its data set.")
    figure: str = Field(
        description="What is compared: the difference of a score, or `group_match_p`, the one-sided p-value of "
        "McNemar's exact test."
    )
    rule: Literal["above", "below", "at_least"] = Field(description="How the value must relate to the limit.")
    value: float
    limit: float
    passed: bool


class GateFigure(BaseModel):
    """A figure that was measured of both versions, with the same options and on the same data."""

    on: str = Field(description="The benchmark and its data set.")
    figure: str = Field(
        description="`group_match` and `group_score` on Winoground; elsewhere `score`, the accuracy of zero-shot, or "
        "the mean recall@1 of retrieval."
    )
    before: float = Field(description="That of the version in `compared_with`.")
    after: float = Field(description="That of the version that is to be promoted.")


Missing = Literal["winoground", "zero_shot_or_retrieval"]


class GateInfo(BaseModel):
    """Whether the version is better than the one that the alias points to, by the rules of `promote: if_better`."""

    verdict: Literal["better", "not_better", "unknown"] = Field(
        description="`unknown`: evaluations that compare the two versions are missing. `why` says what to do."
    )
    why: str
    compared_with: str | None = Field(
        description="The version that the alias points to or, if there is no such alias, the version's base."
    )
    thresholds: Thresholds = Field(
        description="Those of the job that made the version, or else the defaults."
    )
    checks: list[GateCheck]
    figures: list[GateFigure] = Field(
        description="What was measured of both versions. Some figures can exist although others are missing."
    )
    missing: list[Missing] = Field(
        description="What was not yet measured of both versions, and without which there is no verdict."
    )
    evidence: list[str] = Field(description="The ids of the jobs whose figures were compared.")


class PromotionPlan(BaseModel):
    """What the request would do. Nothing was moved."""

    object: Literal["dry_run"] = "dry_run"
    name: str = Field(description="The alias.")
    from_version: str | None = Field(
        description="Where the alias points. It is null if there is no such alias."
    )
    to_version: str
    from_generation: int = Field(description="The alias's generation, 0 if there is no such alias.")
    generation: int = Field(description="The generation that the alias would have afterwards.")
    moves: bool = Field(description="Whether the request would move the alias.")
    error: ErrorDetail | None = Field(
        description="The error with which the request would be refused, for example because the key may not move the "
        "alias."
    )
    lock: LockInfo | None = Field(description="The lock that keeps the alias where it is, or null.")
    gate: GateInfo = Field(
        description="What the gate says. It decides about jobs. A request is refused only if the job that made the "
        "version compared it and did not promote it (`not_better`)."
    )


PromotionAnswer = TypeAliasType(
    "PromotionAnswer", Annotated[MovedAlias | PromotionPlan, Field(discriminator="object")]
)
