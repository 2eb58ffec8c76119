"""The tables. `app/store/migrations` creates them, and a test checks that both agree.

Times are seconds since the epoch, UTC, by the clock of the process that writes.
"""

from dataclasses import asdict
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    text,
    true,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from app.store.records import AliasAction, AliasLock, DatasetStatus, JobError, Level, VersionStatus
from app.store.states import JobKind, JobStatus


class Text(TypeDecorator[str]):
    """A string that every database accepts.

    PostgreSQL rejects NUL, and both databases reject lone surrogates.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any | None, dialect: Dialect) -> Any:
        """Replace what cannot be stored. Values in comparisons are replaced in the same way."""
        if not isinstance(value, str):
            return value
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


class Choice(TypeDecorator[StrEnum]):
    """A member of an enumeration, stored by its value."""

    impl = Text
    cache_ok = True

    def __init__(self, of: type[StrEnum]) -> None:
        super().__init__()
        self.of = of

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        return None if value is None else self.of(value)


class Fields(TypeDecorator[Any]):
    """A dataclass, stored as JSON."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def __init__(self, of: type[JobError | AliasLock]) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: Any | None, dialect: Dialect) -> Any:
        return asdict(value) if isinstance(value, self.of) else value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        return None if value is None else self.of(**value)


def json_type() -> JSON:
    """JSON in which Python's None is SQL's NULL."""
    return JSON(none_as_null=True)


RowId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows automatically only in a column of type INTEGER."""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
    }
)

ELIGIBLE = text("status IN ('queued', 'running')")
"""The jobs that a claim considers. Both databases use a partial index only for an identical condition."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Choice(JobKind), nullable=False),
    Column("status", Choice(JobStatus), nullable=False),
    Column("request", json_type(), nullable=False),
    Column("config", json_type()),
    Column("stage", Text),
    Column("step", BigInteger, nullable=False),
    Column("steps", BigInteger),
    Column("estimated_finish", Double),
    Column("attempt", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("interruptions", Integer, nullable=False, server_default="0"),
    Column("max_interruptions", Integer, nullable=False, server_default="100"),
    Column("furthest_step", BigInteger, nullable=False, server_default="0"),
    Column("run_time_s", Double, nullable=False, server_default="0"),
    Column("max_run_time_s", Double, nullable=False, server_default="604800"),
    Column("claimed_at", Double),
    Column("fence", BigInteger, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Double),
    Column("queued_at", Double),
    Column("not_before", Double, nullable=False),
    Column("cancel_requested_at", Double),
    Column("pause_requested_at", Double),
    Column("pause_reason", Fields(JobError)),
    Column("result_version", Text),
    Column("result", json_type()),
    Column("error", Fields(JobError)),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("owner", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("payload_hash", Text, nullable=False),
    Column("seed", BigInteger),
    Column("suffix", Text),
    Column("metadata", json_type(), nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("pruned_at", Double),
    Column("files_removed_at", Double),
    Column("by_admin", Boolean, nullable=False, server_default=true()),
    Column("format", Integer, nullable=False, server_default="0"),
    Column("name", Text, nullable=False, server_default=""),
    UniqueConstraint("owner", "idempotency_key"),
    # One index for each way to list, so that a page costs the same however many jobs have finished.
    Index("jobs_by_time", "created_at", "id"),
    Index("jobs_by_status", "status", "created_at", "id"),
    Index("jobs_by_kind", "kind", "created_at", "id"),
    Index("jobs_by_kind_and_status", "kind", "status", "created_at", "id"),
    Index("jobs_by_owner", "owner", "created_at", "id"),
    Index("jobs_by_owner_and_status", "owner", "status", "created_at", "id"),
    Index("jobs_by_result", "result_version"),
    Index("jobs_by_name", "name"),
    Index("jobs_eligible", "kind", "created_at", "id", sqlite_where=ELIGIBLE, postgresql_where=ELIGIBLE),
    Index(
        "jobs_unpruned",
        "finished_at",
        sqlite_where=text("pruned_at IS NULL"),
        postgresql_where=text("pruned_at IS NULL"),
    ),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queue", Choice(JobKind), nullable=False),
    Column("device", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("clock_skew_s", Double),
    Column("out_because", Text),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("source", json_type(), nullable=False),
    Column("status", Choice(DatasetStatus), nullable=False),
    Column("content_hash", Text),
    Column("counts", json_type()),
    Column("problems", json_type()),
    Column("statistics", json_type()),
    Column("folder", Text),
    Column("owner", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("checked_at", Double),
    Column("attempt", Integer, nullable=False),
    Column("interruptions", Integer, nullable=False, server_default="0"),
    Column("fence", BigInteger, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Double, nullable=False),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("used_at", Double),
    Index("datasets_by_time", "created_at", "id"),
    Index("datasets_by_status", "status", "created_at", "id"),
    Index("datasets_by_owner", "owner", "created_at", "id"),
    Index("datasets_by_name", "name"),
)

versions = Table(
    "versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("base", Text),
    Column("base_version", Text, ForeignKey("versions.id"), index=False),
    Column("job_id", Text, ForeignKey("jobs.id"), unique=True),
    Column("folder", Text),
    Column("description", json_type(), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("status", Choice(VersionStatus), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("damaged_at", Double),
    Column("owner", Text, nullable=False, server_default=""),
    Column("used_at", Double),
    Index("versions_by_time", "created_at", "id"),
    Index("versions_by_status", "status", "created_at", "id"),
    Index("versions_by_base", "base_version"),
)

job_datasets = Table(
    "job_datasets",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("dataset_id", Text, ForeignKey("datasets.id"), nullable=False),
    PrimaryKeyConstraint("job_id", "dataset_id"),
    Index("job_datasets_by_dataset", "dataset_id"),
)

job_versions = Table(
    "job_versions",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("version_id", Text, ForeignKey("versions.id"), nullable=False),
    PrimaryKeyConstraint("job_id", "version_id"),
    Index("job_versions_by_version", "version_id"),
)

events = Table(
    "events",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("level", Choice(Level), nullable=False),
    Column("type", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", json_type()),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("job_id", "number"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("values", json_type(), nullable=False),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("job_id", "step"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Text, ForeignKey("versions.id"), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("previous", Text, ForeignKey("versions.id")),
    Column("updated_at", Double, nullable=False),
    Column("lock", Fields(AliasLock)),
    Column("owner", Text, nullable=False, server_default=""),
    Column("removed_at", Double),
    Index("aliases_by_version", "version"),
)

promotions = Table(
    "promotions",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("who", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("from_version", Text),
    Column("to_version", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("why", Text, nullable=False),
    Column("metrics", json_type()),
    Column("job_id", Text),
    Column("forced", Boolean, nullable=False),
    Column("action", Choice(AliasAction), nullable=False, server_default="promote"),
    Column("back_to", BigInteger),
    Index("promotions_by_alias", "alias", "id"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("lease_until", Double, nullable=False),
)
"""Work that only one process does at a time, besides jobs and checks."""

failures = Table(
    "failures",
    metadata,
    Column("kind", Choice(JobKind), nullable=False),
    Column("outcome", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "outcome", "code"),
)
"""How often jobs have failed, and attempts ended with an error after which the job goes on."""

data_folder = Table("data_folder", metadata, Column("id", Text, primary_key=True))
"""One row: the id that the data folder has too (`app.data_folder`)."""

oldest_program = Table("oldest_program", metadata, Column("revision", Text, primary_key=True))
"""One row: the oldest program that may use the tables, by its newest migration (`app.store.migrate`)."""
