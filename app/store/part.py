"""What the parts of the store have in common."""

from collections.abc import Mapping
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, Table, select

from sds_clip.app.errors import RecordKind, UnknownRecord
from sds_clip.app.store.clock import Clock
from sds_clip.app.store.database import Database
from sds_clip.app.store.owned import owned
from sds_clip.app.store.records import Record
from sds_clip.app.store.tables import aliases, datasets, jobs, versions

KINDS: Mapping[Table, RecordKind] = {
    jobs: "job",
    datasets: "dataset",
    versions: "version",
    aliases: "alias",
}
R = TypeVar("R", bound=Record)


class Part:
    """A part of the store. Every method raises StoreUnavailable when the database is unavailable.

    With an owner, the rows of all others are unknown: those of the table, which is that of jobs for most parts.
    """

    table: Table = jobs

    def __init__(self, database: Database, clock: Clock, owner: str | None = None) -> None:
        self._database = database
        self._clock = clock
        self._owner = owner
        self._seen = owned(self.table, owner)


def known(
    connection: Connection, record: type[R], table: Table, *where: ColumnElement[bool], lock: bool = False
) -> R:
    """The row for which the conditions hold. With `lock`, locked until this transaction ends. Raises UnknownRecord."""
    query = select(table).where(*where)
    found = record.one_or_none(connection, query.with_for_update() if lock else query)
    if found is None:
        raise UnknownRecord(KINDS[table])
    return found
