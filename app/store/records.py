"""Jobs, events and metrics as the rest of the program sees them: frozen, typed, free of SQL.

`app.store.assets` has data sets, versions and aliases.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Generic, Self, TypeVar

from sqlalchemy import RowMapping

from app.settings import MAX_ATTEMPTS, MAX_INTERRUPTIONS, MAX_RUN_TIME_S
from app.store.states import JobKind, JobStatus

Json = Mapping[str, Any]
R = TypeVar("R")


class Record:
    """A dataclass whose fields are columns of one table, or some of them."""

    @classmethod
    def of(cls, row: RowMapping) -> Self:
        """From a row; the columns' own types make enums and errors (`app.store.tables`)."""
        return cls(**{entry.name: row[entry.name] for entry in fields(cls)})  # type: ignore[arg-type]


class EventType(StrEnum):
    """What an event tells."""

    STATUS = "status"
    """A transition: data is {from, to}. Never pruned."""
    MESSAGE = "message"
    METRICS = "metrics"
    """data is {step, values}."""


class Level(StrEnum):
    """How much an event matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Page(Generic[R]):
    """One page of a list; `after` the last one's id comes the next, if `has_more`."""

    items: tuple[R, ...]
    has_more: bool


@dataclass(frozen=True)
class JobError:
    """Why a job failed, in the fields of a ServiceError."""

    code: str
    message: str
    param: str | None = None
    retryable: bool = False


@dataclass(frozen=True)
class NewJob:
    """What a caller submits, checked already. `request` is what idempotency compares, with `kind`.

    `datasets` and `versions` are the ids that it needs: neither can be deleted while the job is open, and
    the job waits for data sets that are still being checked. `owner` is the id of the API key, "" for none.
    The three limits hold for this job, whatever is set later.
    `seed` is at least 0 and under 2 ** 63.
    """

    kind: JobKind
    request: Json
    config: Json | None = None
    datasets: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    max_attempts: int = MAX_ATTEMPTS
    max_interruptions: int = MAX_INTERRUPTIONS
    max_run_time_s: float = MAX_RUN_TIME_S
    seed: int | None = None
    suffix: str | None = None
    metadata: Json = field(default_factory=dict)
    owner: str = ""
    idempotency_key: str | None = None


@dataclass(frozen=True)
class Job(Record):
    """A job as it was when it was read."""

    id: str
    kind: JobKind
    status: JobStatus
    request: Json
    config: Json | None
    stage: str | None
    step: int
    steps: int | None
    estimated_finish: float | None
    attempt: int
    """Attempts begun since the last step past the furthest so far (or since it was submitted, resumed or retried),
    without those that an interruption or a pause ended."""
    max_attempts: int
    interruptions: int
    """Leases that have lapsed, and shutdowns of its worker: its machine's doing, not its own."""
    max_interruptions: int
    furthest_step: int
    """The furthest that any attempt has come, over all stages."""
    run_time_s: float
    """How long it ran, up to when its last worker let go of it."""
    max_run_time_s: float
    claimed_at: float | None
    """When the last worker took it."""
    fence: int
    """Rises by one with every claim; 0 before the first."""
    lease_owner: str | None
    lease_until: float | None
    queued_at: float | None
    not_before: float
    """Not to be claimed earlier: attempts and interruptions back off."""
    cancel_requested_at: float | None
    pause_requested_at: float | None
    pause_reason: JobError | None
    """Why its worker paused it; None where a person asked, and for a job that is not paused."""
    result_version: str | None
    result: Json | None
    error: JobError | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    owner: str
    idempotency_key: str | None
    payload_hash: str
    seed: int | None
    suffix: str | None
    metadata: Json
    event_count: int
    """Events so far; also the number of the newest."""
    files_removed_at: float | None
    """When its files, checkpoints among them, were removed."""


@dataclass(frozen=True)
class Lease:
    """A worker's right to a job. Two strings' worth of data: a supervisor hands it to its trainer as it is."""

    job_id: str
    fence: int

    @classmethod
    def of(cls, job: Job) -> "Lease":
        """The lease of a job that was just claimed."""
        return cls(job.id, job.fence)


@dataclass(frozen=True)
class StaleJob:
    """A job that waits for a worker, for whom a wake-up may have been lost."""

    id: str
    kind: JobKind
    since: float
    """When it became due: queued, or its lease ended."""


@dataclass(frozen=True)
class Event(Record):
    """Something that happened to a job. Numbers rise by one within a job, from 1."""

    job_id: str
    number: int
    level: Level
    type: str
    message: str
    data: Json | None
    at: float


@dataclass(frozen=True)
class MetricPoint(Record):
    """A job's metrics at a step; a number that was not finite is None."""

    step: int
    values: Mapping[str, float | None]
    at: float
