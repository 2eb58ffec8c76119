"""The tables. `app/store/migrations` creates them, and a test checks that both agree.

The fields of a record (`sds_clip.app.store.records`) are columns of its table. What their types do not tell is here,
except defaults, which only the migrations have.

Times are seconds since the epoch, UTC, by the clock of the process that writes.
"""

from dataclasses import asdict
from enum import StrEnum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

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
)
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeDecorator, TypeEngine

from sds_clip.app.store.records import (
    Alias,
    AliasLock,
    Dataset,
    Event,
    Job,
    JobError,
    MetricPoint,
    NewWorker,
    Promotion,
    Record,
    Version,
)
from sds_clip.app.store.states import JobKind


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


RowId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows automatically only in a column of type INTEGER."""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
    }
)

_TYPES: dict[type, type[TypeEngine[Any]]] = {str: Text, int: BigInteger, float: Double, bool: Boolean}


def _table(name: str, record: type[Record], *items: SchemaItem) -> Table:
    """A table with a column for each field of its record, and with `items`. A column among these replaces a field's."""
    replaced = {item.name for item in items if isinstance(item, Column)}
    hints = get_type_hints(record).items()
    return Table(name, metadata, *(_column(*hint) for hint in hints if hint[0] not in replaced), *items)


def _column(name: str, hint: Any) -> Column[Any]:
    is_optional = isinstance(hint, UnionType)
    return Column(name, _type_of(get_args(hint)[0] if is_optional else hint), nullable=is_optional)


def _type_of(of: Any) -> TypeEngine[Any] | type[TypeEngine[Any]]:
    if get_origin(of) is not None:  # a Mapping or a Sequence
        return JSON(none_as_null=True)
    return _TYPES.get(of) or (Choice(of) if issubclass(of, StrEnum) else Fields(of))


ELIGIBLE = text("status IN ('queued', 'running')")
"""The jobs that a claim considers. Both databases use a partial index only for an identical condition."""

jobs = _table(
    "jobs",
    Job,
    Column("id", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("interruptions", Integer, nullable=False),
    Column("max_interruptions", Integer, nullable=False),
    Column("pruned_at", Double),
    Column("format", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("devices", Integer, nullable=False),
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
    # By which workers of the release before claim.
    Index("jobs_eligible", "kind", "created_at", "id", sqlite_where=ELIGIBLE, postgresql_where=ELIGIBLE),
    Index(
        "jobs_unpruned",
        "finished_at",
        sqlite_where=text("pruned_at IS NULL"),
        postgresql_where=text("pruned_at IS NULL"),
    ),
)

Index(
    "jobs_in_turn",
    *(jobs.c.kind, jobs.c.owner, jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id),
    sqlite_where=ELIGIBLE,
    postgresql_where=ELIGIBLE,
)

NO_CHECK = jobs.c.kind != JobKind.CHECK
"""The jobs that callers have submitted."""

workers = _table(
    "workers",
    NewWorker,
    Column("id", Text, primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("clock_skew_s", Double),
    Column("out_because", Text),
)

datasets = _table(
    "datasets",
    Dataset,
    Column("id", Text, primary_key=True),
    Column("folder", Text),
    # By which workers of the release before check.
    Column("attempt", Integer, nullable=False),
    Column("interruptions", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Double, nullable=False),
    Column("used_at", Double),
    Index("datasets_by_time", "created_at", "id"),
    Index("datasets_by_status", "status", "created_at", "id"),
    Index("datasets_by_owner", "owner", "created_at", "id"),
    Index("datasets_by_name", "name"),
)

versions = _table(
    "versions",
    Version,
    Column("id", Text, primary_key=True),
    Column("base_version", Text, ForeignKey("versions.id"), index=False),
    Column("job_id", Text, ForeignKey("jobs.id"), unique=True),
    Column("used_at", Double),
    Index("versions_by_time", "created_at", "id"),
    Index("versions_by_status", "status", "created_at", "id"),
    Index("versions_by_base", "base_version"),
)


def _needs(name: str, one: str) -> Table:
    """What jobs need of another table."""
    return Table(
        name,
        metadata,
        Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
        Column(f"{one}_id", Text, ForeignKey(f"{one}s.id"), nullable=False),
        PrimaryKeyConstraint("job_id", f"{one}_id"),
        Index(f"{name}_by_{one}", f"{one}_id"),
    )


job_datasets, job_versions = _needs("job_datasets", "dataset"), _needs("job_versions", "version")

events = _table(
    "events",
    Event,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    PrimaryKeyConstraint("job_id", "number"),
)

metrics = _table(
    "metrics",
    MetricPoint,
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    PrimaryKeyConstraint("job_id", "step"),
)

aliases = _table(
    "aliases",
    Alias,
    Column("name", Text, primary_key=True),
    Column("version", Text, ForeignKey("versions.id"), nullable=False),
    Column("previous", Text, ForeignKey("versions.id")),
    Index("aliases_by_version", "version"),
)

promotions = _table(
    "promotions",
    Promotion,
    Column("id", RowId, primary_key=True, autoincrement=True),
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
"""Work that only one process does at a time, besides jobs."""

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

slot_use = Table(
    "slot_use",
    metadata,
    Column("kind", Choice(JobKind), nullable=False),
    Column("owner", Text, nullable=False),
    Column("period", BigInteger, nullable=False),
    Column("used_s", Double, nullable=False),
    PrimaryKeyConstraint("kind", "owner", "period"),
)
"""For how many seconds an owner's jobs have held slots, by periods (`sds_clip.app.store.shares`)."""

data_folder = Table("data_folder", metadata, Column("id", Text, primary_key=True))
"""One row: the id that the data folder has too (`sds_clip.app.data_folder`)."""

oldest_program = Table("oldest_program", metadata, Column("revision", Text, primary_key=True))
"""One row: the oldest program that may use the tables, by its newest migration (`sds_clip.app.store.migrate`)."""
