"""Rows as the rest of the program sees them: jobs, workers, events, metrics, data sets, versions and aliases.

`sds_clip.app.store.tables` makes the tables' columns from the fields.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, Self, TypeVar

from sqlalchemy import Connection, Executable

from sds_clip.app.settings import MAX_ATTEMPTS, MAX_INTERRUPTIONS, MAX_RUN_TIME_S
from sds_clip.app.store.states import JobKind, JobStatus

Json = Mapping[str, Any]

JOB_FORMAT = 1
"""The newest format of a job's spec and checkpoints that this program knows. It reads all older ones.

A release that changes what they may hold raises it, so that workers of the release before leave such jobs alone.
"""
SOURCE_PATH, MAX_BAD_SHARE = "path", "max_bad_share"
"""Keys of a data set's `source`: the path of a registered one, and the share that may be unusable."""
R = TypeVar("R")


@dataclass(frozen=True)
class Record:
    """A dataclass whose fields are columns of one table, or some of them."""

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Build the record from a row. The column types of `sds_clip.app.store.tables` create enums and errors."""
        return cls(**{entry.name: row[entry.name] for entry in fields(cls)})

    @classmethod
    def one(cls, connection: Connection, statement: Executable) -> Self:
        return cls.of(connection.execute(statement).mappings().one())

    @classmethod
    def one_or_none(cls, connection: Connection, statement: Executable, **values: Any) -> Self | None:
        row = connection.execute(statement, values).mappings().one_or_none()
        return None if row is None else cls.of(row)

    @classmethod
    def all(cls, connection: Connection, statement: Executable) -> tuple[Self, ...]:
        return tuple(map(cls.of, connection.execute(statement).mappings()))

    @classmethod
    def columns(cls, record: "Record") -> dict[str, Any]:
        """The fields of this class, by name, of a record that may have more."""
        return {entry.name: getattr(record, entry.name) for entry in fields(cls)}


class EventType(StrEnum):
    """What an event tells."""

    STATUS = "status"
    """A transition, never pruned. Its data is {from, to}."""
    MESSAGE = "message"
    METRICS = "metrics"
    """Its data is {step, values}."""


class Level(StrEnum):
    """The level of an event, as in a log."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Page(Generic[R]):
    """One page of a list. If `has_more`, the next page comes after the id of the last item."""

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
class Submission(Record):
    """What its submission says of a job.

    Idempotency compares `request` and `kind`. `owner` is the name of the API key, or "" for none. The three limits
    apply to this job, whatever is configured later. `seed` is at least 0 and less than 2 ** 63.
    """

    kind: JobKind
    request: Json
    config: Json | None = None
    format: int = JOB_FORMAT
    """The newest format of its spec and checkpoints. Workers that do not know it leave the job alone."""
    max_attempts: int = MAX_ATTEMPTS
    max_interruptions: int = MAX_INTERRUPTIONS
    max_run_time_s: float = MAX_RUN_TIME_S
    priority: int = 0
    """Among an owner's jobs, those of the highest priority are claimed first."""
    devices: int = 1
    """How many devices it needs. Slots with fewer leave it alone."""
    seed: int | None = None
    suffix: str | None = None
    name: str = ""
    """What its owner calls it, or "" for nothing."""
    metadata: Json = field(default_factory=dict)
    owner: str = ""
    by_admin: bool = True
    """Whether it may move every alias, and not only those that were given to its owner."""
    idempotency_key: str | None = None


@dataclass(frozen=True)
class NewJob(Submission):
    """A checked submission.

    `datasets` and `versions` are the ids of what the job needs. Neither can be deleted while the job is open,
    and the job waits for data sets that are still being checked.
    """

    datasets: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    trace: Mapping[str, str] = field(default_factory=dict)
    """The request's span, for the workers' (`sds_clip.app.tracing`). It is stored in the first event."""


@dataclass(frozen=True, kw_only=True)
class Job(Submission):
    """The state of a job when it was read."""

    id: str
    status: JobStatus
    stage: str | None
    step: int
    steps: int | None
    estimated_finish: float | None
    attempt: int
    """Attempts begun since the job last passed its furthest step (or was submitted, resumed or retried),
    except those that an interruption or a pause ended."""
    interruptions: int
    """Lapsed leases and shutdowns of its worker, which are caused by the machine and not by the job."""
    furthest_step: int
    """The furthest step that any attempt has reached, over all stages."""
    run_time_s: float
    """How long it has run, until its last worker released it."""
    claimed_at: float | None
    """When the last worker claimed it."""
    fence: int
    """Increases by one with every claim. 0 before the first."""
    lease_owner: str | None
    lease_until: float | None
    queued_at: float | None
    not_before: float
    """The job is not claimed earlier, because attempts and interruptions back off."""
    cancel_requested_at: float | None
    pause_requested_at: float | None
    turn_over_at: float | None
    """When its turn ended, so that its worker has to release it for another owner's job. A claim resets it."""
    pause_reason: JobError | None
    """Why its worker paused it. None if a person asked for it, and for a job that is not paused."""
    result_version: str | None
    result: Json | None
    error: JobError | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    payload_hash: str
    event_count: int
    """The number of events so far, which is also the number of the newest."""
    files_removed_at: float | None
    """When its files, including checkpoints, were removed."""


@dataclass(frozen=True)
class Lease:
    """A worker's right to a job. It is plain data, which a supervisor can hand to its job process."""

    job_id: str
    fence: int

    @classmethod
    def of(cls, job: Job) -> "Lease":
        return cls(job.id, job.fence)


@dataclass(frozen=True)
class NewWorker(Record):
    """A supervisor and its one slot. `id` is the owner of its leases."""

    id: str
    host: str
    pid: int
    queue: JobKind
    device: str
    version: str
    """The version of the program."""
    started_at: float


@dataclass(frozen=True)
class Worker(NewWorker):
    """A worker as it was last seen."""

    seen_at: float
    clock_skew_s: float | None
    """How far the clock of its host is ahead of the database's. None for a worker of the release before."""
    out_because: str | None
    """Why it takes no jobs. None if it takes them."""
    alive: bool
    job_id: str | None
    """The job that it holds, if the caller sees that job."""


@dataclass(frozen=True)
class Event(Record):
    """Something that happened to a job. Numbers increase by one within a job, starting at 1."""

    job_id: str
    number: int
    at: float
    type: str
    message: str
    level: Level = Level.INFO
    data: Json | None = None


@dataclass(frozen=True)
class MetricPoint(Record):
    """A job's metrics at a step. Numbers that were not finite are None."""

    step: int
    values: Mapping[str, float | None]
    at: float


class DatasetStatus(StrEnum):
    """The status of a data set. Jobs can use it only when it is `ready`."""

    VALIDATING = "validating"
    READY = "ready"
    REJECTED = "rejected"
    DELETED = "deleted"


WITH_FILES = (DatasetStatus.VALIDATING, DatasetStatus.READY)


class VersionStatus(StrEnum):
    """A deleted version stays as a row, so that lineage can still be read."""

    READY = "ready"
    DELETED = "deleted"


@dataclass(frozen=True)
class NewVersion(Record):
    """A complete, immutable folder of weights that is about to be registered.

    `id` is the hash of its content.

    `base` is a readable reference. `base_version` is the id of the registered base of a delta, which cannot
    be deleted before the delta.
    """

    id: str
    folder: str | None
    description: Json
    size_bytes: int
    base: str | None = None
    base_version: str | None = None


@dataclass(frozen=True)
class Version(NewVersion):
    """A registered version.

    `job_id` is the job that made it first, or None. `damaged_at` is when its files were found to differ from
    those that were published, or None for intact files.
    """

    job_id: str | None = None
    status: VersionStatus = VersionStatus.READY
    created_at: float = 0.0
    damaged_at: float | None = None
    owner: str = ""
    """The owner of the job that made it, or "" for the operator's."""


@dataclass(frozen=True)
class AliasLock:
    """Who locked an alias, when and why. A locked alias stays where it is."""

    who: str
    at: float
    why: str

    def __str__(self) -> str:
        """The lock in words, for messages."""
        at = datetime.fromtimestamp(self.at, UTC)
        return (
            f"{self.who} locked it on {at:%Y-%m-%d at %H:%M} UTC, for this reason: {self.why.rstrip('. ')}."
        )


@dataclass(frozen=True)
class Alias(Record):
    """A name that points to a version.

    The generation increases by one with every move, including a rollback and the removal.
    """

    name: str
    version: str
    generation: int
    previous: str | None = None
    """The version that a rollback leads to."""
    updated_at: float = 0.0
    """Seconds since the epoch, or 0 if the time was not stored."""
    lock: AliasLock | None = None
    owner: str = ""
    """The key that an administrator gave it to, or "" for none."""
    removed_at: float | None = None
    """When it was removed, or None. The record of a removed alias stays, so that its generation never goes back."""


@dataclass(frozen=True)
class Move:
    """The request to point an alias to another version, or to remove it.

    `expected_generation` is the generation on which the decision was based: 0 for an alias that does not
    exist, None to move it in any case. `of_owner` is the owner that the alias must have, None to move anyone's.
    `give_to` is its new owner, None to leave it.
    """

    alias: str
    who: str
    why: str
    expected_generation: int | None
    metrics: Json | None = None
    forced: bool = False
    of_owner: str | None = None
    give_to: str | None = None


class AliasAction(StrEnum):
    """What was done to an alias. The first two move it."""

    PROMOTE = "promote"
    ROLL_BACK = "rollback"
    LOCK = "lock"
    UNLOCK = "unlock"
    GIVE = "give"
    REMOVE = "remove"


@dataclass(frozen=True)
class Promotion(Record):
    """One line of the audit: an alias was moved, locked, unlocked, removed or given to another owner."""

    id: int
    at: float
    who: str
    alias: str
    action: AliasAction
    from_version: str | None
    to_version: str
    generation: int
    why: str
    metrics: Json | None
    job_id: str | None
    forced: bool


@dataclass(frozen=True)
class Dataset(Record):
    """An uploaded or registered data set. `source` says where it came from."""

    id: str
    name: str
    format: str
    source: Json
    status: DatasetStatus
    content_hash: str | None
    counts: Json | None
    problems: Sequence[Json] | None
    owner: str
    created_at: float
    checked_at: float | None
    statistics: Json | None
    """Histograms of its captions and images, as its check counted them."""
    size_bytes: int
    """What it takes on disk: the upload's size, and that of its files once they are checked. 0 for registered data."""

    @property
    def max_bad_share(self) -> float:
        return float(self.source.get(MAX_BAD_SHARE) or 0.0)
