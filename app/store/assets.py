"""Data sets, versions and aliases as the rest of the program sees them: frozen, typed, free of SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import RowMapping

from app.store.records import Json, values_of
from models.evaluation.catalog import BENCHMARKS


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
class NewVersion:
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

    @classmethod
    def of(cls, row: RowMapping) -> "Version":
        """From a row of `tables.versions`."""
        return cls(**{**values_of(cls, row), "status": VersionStatus(row["status"])})


@dataclass(frozen=True)
class Alias:
    """A name that points at a version. The generation rises by one with every move, also with a rollback."""

    name: str
    version: str
    generation: int
    previous: str | None = None
    updated_at: float = 0.0
    """Seconds since the epoch; 0 where that was not kept."""

    @classmethod
    def of(cls, row: RowMapping) -> "Alias":
        """From a row of `tables.aliases`."""
        return cls(**values_of(cls, row))


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
class Promotion:
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

    @classmethod
    def of(cls, row: RowMapping) -> "Promotion":
        """From a row of `tables.promotions`."""
        return cls(**values_of(cls, row))


PAIRS = "pairs"
FORMATS = (PAIRS, *BENCHMARKS)
"""What a data set's `format` may be: pairs to train on, or the name of a benchmark that reads it."""
SOURCE_PATH, MAX_BAD_SHARE = "path", "max_bad_share"
"""Keys of a data set's `source`: the path of one that was registered, and what `Dataset.max_bad_share` is."""


@dataclass(frozen=True)
class Dataset:
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

    @classmethod
    def of(cls, row: RowMapping) -> "Dataset":
        """From a row of `tables.datasets`."""
        return cls(**{**values_of(cls, row), "status": DatasetStatus(row["status"])})
