"""Data sets, versions and aliases as the rest of the program sees them: frozen, typed, free of SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.store.records import Json, Record

SOURCE_PATH, MAX_BAD_SHARE = "path", "max_bad_share"
"""In a data set's `source`: where a registered one lies, and the share of it that may be unusable."""


class DatasetStatus(StrEnum):
    """Where a data set is; only a ready one is trained or evaluated on."""

    VALIDATING = "validating"
    READY = "ready"
    REJECTED = "rejected"
    DELETED = "deleted"


class VersionStatus(StrEnum):
    """A deleted version stays as a row, so that lineage can still be read."""

    READY = "ready"
    DELETED = "deleted"


@dataclass(frozen=True)
class NewVersion(Record):
    """A complete, immutable folder of weights that is about to be known. `id` is its content's hash.

    `base` is a reference that people can read; `base_version` the id of the registered version that a delta
    lies over, which cannot be deleted before it.
    """

    id: str
    folder: str | None
    description: Json
    size_bytes: int
    base: str | None = None
    base_version: str | None = None


@dataclass(frozen=True)
class Version(NewVersion):
    """A registered version. `job_id` is the job that made it first, or None; `damaged_at` is when its files were found
    not to be those that were published, None for whole ones.
    """

    job_id: str | None = None
    status: VersionStatus = VersionStatus.READY
    created_at: float = 0.0
    damaged_at: float | None = None


@dataclass(frozen=True)
class Alias(Record):
    """A name that points at a version. The generation rises by one with every move."""

    name: str
    version: str
    generation: int
    previous: str | None
    updated_at: float


@dataclass(frozen=True)
class Move:
    """An alias is to point at another version. `expected_generation` is what the decision was made on:
    0 for an alias that does not exist, None to move it whatever it is.
    """

    alias: str
    who: str
    why: str
    expected_generation: int | None
    metrics: Json | None = None
    forced: bool = False


@dataclass(frozen=True)
class Promotion(Record):
    """One line of the audit: an alias was moved."""

    id: int
    at: float
    who: str
    alias: str
    from_version: str | None
    to_version: str
    generation: int
    why: str
    metrics: Json | None
    job_id: str | None
    forced: bool


@dataclass(frozen=True)
class Dataset(Record):
    """An uploaded or registered data set. `source` says where it came from, `folder` where it lies."""

    id: str
    name: str
    format: str
    source: Json
    status: DatasetStatus
    content_hash: str | None
    counts: Json | None
    problems: Sequence[Json] | None
    folder: str | None
    owner: str
    created_at: float
    checked_at: float | None
    attempt: int
    """Checks whose process died."""
    interruptions: int
    """Checks whose worker or machine was lost."""
    fence: int
    lease_owner: str | None
    """The process that checks it."""

    @property
    def max_bad_share(self) -> float:
        """The share of it that may be unusable, and is left out."""
        return float(self.source.get(MAX_BAD_SHARE) or 0.0)
