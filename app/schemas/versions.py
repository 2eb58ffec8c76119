"""GET /models/{version}, and how an alias is moved."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import Body
from app.store.alias_names import ALIAS_PATTERN, DEFAULT
from app.store.records import Alias, Promotion, Version, VersionStatus

Reason = Annotated[str, Field(min_length=1, max_length=1000, description="For the audit.")]
Generation = Annotated[
    int | None,
    Field(
        ge=0,
        lt=2**62,
        description="Move the alias only if it is still at this generation; 0: if there is none.",
    ),
]


class PromoteRequest(Body):
    """Point an alias at a version."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"alias": "default", "reason": "better on Winoground"}]}
    )

    alias: str = Field(DEFAULT, pattern=ALIAS_PATTERN)
    reason: Reason
    force: bool = Field(False, description="Also a version that its own job compared and found not better.")
    expected_generation: Generation = None


class RollbackRequest(Body):
    """Point an alias at the version before."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "worse in production"}]})

    reason: Reason
    expected_generation: Generation = None


class AliasInfo(BaseModel):
    """Where an alias points."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    object: Literal["alias"] = "alias"
    version: str
    generation: int = Field(description="Grows by one with every move, also with one back.")
    previous: str | None = Field(description="Where a rollback leads.")
    updated_at: float


class VersionInfo(BaseModel):
    """A registered version."""

    id: str = Field(description="SHA-256 of the weights and of all else that changes a score.")
    object: Literal["model"] = "model"
    status: Literal["ready", "damaged", "deleted"] = Field(
        description="`damaged`: its files were found not to be those that were published. It is neither promoted nor "
        "downloaded until they are."
    )
    damaged_at: float | None = Field(description="When that was found.")
    created_at: float
    size_bytes: int
    base: str | None = Field(description="What it lies over, as people read it.")
    base_version: str | None
    job_id: str | None = Field(description="The job that made it first.")
    downloadable: bool = Field(description="Not so for an operator's own reference and a damaged version.")
    aliases: list[str]

    @classmethod
    def of(cls, version: Version, aliases: Sequence[Alias] = ()) -> "VersionInfo":
        return cls(**_fields(version, aliases))


class VersionDetail(VersionInfo):
    """A registered version with all that is known of it."""

    description: dict[str, Any] = Field(
        description="Architecture, preprocessing, training, data and metrics, as the version's folder has them."
    )
    metrics: dict[str, Any] | None = Field(description="Of its training.")
    evaluations: dict[str, Any] | None
    lineage: list[str] = Field(description="The versions that it lies over, the nearest first.")
    promotions: list["PromotionInfo"] = Field(description="The newest moves of the aliases that are on it.")

    @classmethod
    def detailed(
        cls,
        version: Version,
        aliases: Sequence[Alias],
        lineage: Sequence[str],
        promotions: Sequence[Promotion],
    ) -> "VersionDetail":
        return cls(
            **_fields(version, aliases),
            metrics=_mapping(version.description.get("metrics")),
            evaluations=_mapping(version.description.get("evaluations")),
            lineage=list(lineage),
            promotions=[PromotionInfo.model_validate(promotion) for promotion in promotions],
        )


class PromotionInfo(BaseModel):
    """A line of the audit: an alias was moved."""

    model_config = ConfigDict(from_attributes=True)

    at: float
    who: str
    alias: str
    from_version: str | None
    to_version: str
    generation: int
    why: str
    metrics: dict[str, Any] | None
    job_id: str | None
    forced: bool


def _fields(version: Version, aliases: Sequence[Alias]) -> dict[str, Any]:
    is_damaged = version.damaged_at is not None and version.status is VersionStatus.READY
    return vars(version) | {
        "status": "damaged" if is_damaged else version.status.value,
        "damaged_at": version.damaged_at if is_damaged else None,
        "downloadable": version.folder is not None
        and version.status is VersionStatus.READY
        and not is_damaged,
        "aliases": [alias.name for alias in aliases if alias.version == version.id],
    }


def _mapping(value: object) -> dict[str, Any] | None:
    return dict(value) if isinstance(value, dict) else None
