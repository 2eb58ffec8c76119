"""GET /models/{version}, and how an alias is moved."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from sds_clip.app.schemas.common import Answer, Body, example
from sds_clip.app.schemas.listing import Listing
from sds_clip.app.store.alias_names import ALIAS_PATTERN, DEFAULT
from sds_clip.app.store.records import Alias, AliasAction, Promotion, Version, VersionStatus

Reason = Annotated[
    str,
    Field(
        pattern=r"\S",
        max_length=1000,
        description="Why you do this. The audit keeps the reason.",
    ),
]
Generation = Annotated[
    int | None,
    Field(
        ge=0,
        lt=2**62,
        description="Move the alias only if it is still at this generation. 0 means that the alias must not "
        "exist yet.",
    ),
]


Wait = Annotated[
    float,
    Field(
        ge=0,
        le=300,
        description="Wait at most this many seconds until every live serving process serves the version, or says "
        "that it cannot, and list the processes in the answer. The alias is moved in any case. 0 means not to wait.",
    ),
]


class PromoteRequest(Body):
    """Point an alias to a version."""

    model_config = example({"alias": "default", "reason": "better on Winoground"})

    alias: str = Field(DEFAULT, pattern=ALIAS_PATTERN)
    reason: Reason
    force: bool = Field(
        False,
        description="Promote the version even if the job that made it compared it and found it no better.",
    )
    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] | None = Field(
        None,
        description="Give the alias to the key of this name, or take it back with an empty name. That key may then "
        "move the alias to its own versions. It needs the scope admin. By default, the owner stays the same.",
    )
    expected_generation: Generation = None
    wait_s: Wait = 0
    dry_run: bool = Field(
        False, description="Move nothing, and return what the request would do and what the gate says."
    )


class RollbackRequest(Body):
    """Point an alias to the version that it pointed to before its last promotion."""

    model_config = example({"reason": "worse in production"})

    reason: Reason
    expected_generation: Generation = None
    wait_s: Wait = 0


class RemoveRequest(Body):
    """Remove an alias."""

    model_config = example({"reason": "the trial is over"})

    reason: Reason
    expected_generation: Generation = None


class LockRequest(Body):
    """Lock or unlock an alias."""

    model_config = example({"reason": "release freeze"})

    reason: Reason


class LockInfo(Answer):
    """Who locked an alias, when and why."""

    who: str
    at: float
    why: str


class AliasInfo(Answer):
    """An alias and the version that it points to."""

    name: str
    object: Literal["alias"] = "alias"
    version: str
    generation: int = Field(
        description="A number that grows by one with every move of the alias, including a rollback and its removal."
    )
    previous: str | None = Field(
        description="The version that a rollback would point the alias at. It is null if there is nothing to go back "
        "to, or if the caller does not see the version."
    )
    updated_at: float
    owner: str = Field(
        description="The key that may move the alias, besides those with the scope admin. Other keys see an empty name."
    )
    lock: LockInfo | None = Field(description="The lock that keeps the alias where it is, or null.")
    removed_at: float | None = Field(
        description="When the alias was removed. `version` is then where it pointed last. It is null in lists."
    )


class VersionInfo(BaseModel):
    """A registered version."""

    id: str = Field(description="The SHA-256 of the weights and of everything else that affects the scores.")
    object: Literal["model"] = "model"
    status: Literal["ready", "damaged", "deleted"] = Field(
        description="The state of the version. `damaged`: its files differ from those that were published. Until "
        "they are repaired, it can be neither promoted nor downloaded."
    )
    damaged_at: float | None = Field(description="When the damage was found.")
    created_at: float
    size_bytes: int
    base: str | None = Field(description="The model that the version is based on, as a readable reference.")
    base_version: str | None = Field(description="The id of the version that it is based on.")
    job_id: str | None = Field(
        description="The job that first made the version. It is null for the versions of other keys."
    )
    owner: str = Field(
        description="The key whose job made the version. It is empty for the operator's own models and for the "
        "versions of other keys."
    )
    downloadable: bool = Field(
        description="Whether the version can be downloaded. The operator's own models and damaged versions "
        "cannot."
    )
    aliases: list[str]

    @classmethod
    def of(cls, version: Version, aliases: Sequence[Alias], *, sees: str | None) -> "VersionInfo":
        """`sees` is the owner whose records are shown, None for those of all."""
        return cls(**_fields(version, aliases, sees))


class VersionDetail(VersionInfo):
    """A registered version with all its details."""

    description: dict[str, Any] = Field(
        description="The architecture, preprocessing, training, data and metrics, as described in the version's "
        "folder."
    )
    metrics: dict[str, Any] | None = Field(description="The metrics of the training.")
    evaluations: dict[str, Any] | None = Field(
        description="What was measured of the version, by `BENCHMARK (DATA SET)`: by the job that made it, and by the "
        "evaluations that the caller sees."
    )
    lineage: list[str] = Field(
        description="The versions that it is based on, nearest first. The list ends at the first that the caller does "
        "not see."
    )
    promotions: list["PromotionInfo"] = Field(
        description="The newest lines of the audit about the aliases that point to the version. They are shown to the "
        "owner of the alias and to keys with the scope admin."
    )

    @classmethod
    def detailed(
        cls,
        version: Version,
        aliases: Sequence[Alias],
        lineage: Sequence[str],
        promotions: Sequence[Promotion],
        evaluations: dict[str, Any] | None,
        *,
        sees: str | None,
    ) -> "VersionDetail":
        metrics = version.description.get("metrics")
        return cls(
            **_fields(version, aliases, sees),
            metrics=metrics if isinstance(metrics, dict) else None,
            evaluations=evaluations,
            lineage=list(lineage),
            promotions=[PromotionInfo.model_validate(promotion) for promotion in promotions],
        )


class PromotionInfo(Answer):
    """A line of the audit: an alias was moved, locked, unlocked, removed or given to another owner."""

    id: int = Field(description="The number of the line.")
    at: float
    who: str
    alias: str
    action: AliasAction = Field(
        description="What was done. A rollback that is older than this field is recorded as `promote`."
    )
    from_version: str | None
    to_version: str
    generation: int
    why: str
    metrics: dict[str, Any] | None
    job_id: str | None
    forced: bool


class PromotionList(Listing):
    """Lines of the audit, newest first."""

    data: list[PromotionInfo]


def _fields(version: Version, aliases: Sequence[Alias], sees: str | None) -> dict[str, Any]:
    is_own = sees in (None, version.owner)
    is_damaged = version.damaged_at is not None and version.status is VersionStatus.READY
    return vars(version) | {
        "owner": version.owner if is_own else "",
        "job_id": version.job_id if is_own else None,
        "status": "damaged" if is_damaged else version.status.value,
        "damaged_at": version.damaged_at if is_damaged else None,
        "downloadable": version.folder is not None
        and version.status is VersionStatus.READY
        and not is_damaged,
        "aliases": [alias.name for alias in aliases if alias.version == version.id],
    }
