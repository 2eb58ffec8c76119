"""The names that owners give to their jobs and data sets, and the beginnings of versions' ids, which stand for ids."""

from collections.abc import Collection

from sqlalchemy import Connection, Table, select

from sds_clip.app.errors import AmbiguousName, NameTaken, UnknownRecord
from sds_clip.app.store.database import hold_name
from sds_clip.app.store.owned import Conditions
from sds_clip.app.store.paging import Rows
from sds_clip.app.store.part import KINDS, R
from sds_clip.app.store.records import DatasetStatus
from sds_clip.app.store.tables import datasets

ID_PREFIXES = ("job_", "ds_")
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def is_id(text: str) -> bool:
    """Whether this is an id and no name: no name begins like an id."""
    return text.startswith(ID_PREFIXES)


def take(connection: Connection, table: Table, owner: str, name: str) -> None:
    """Take a name, unless it is empty, for a row that the same transaction inserts.

    Raises: NameTaken if another of the owner's rows has it.
    """
    if not name:
        return
    hold_name(connection, "name", table.name, owner, name)
    query = select(table.c.id).where(table.c.owner == owner, table.c.name == name, *_named(table))
    taken_by = connection.execute(query).scalars().first()
    if taken_by is not None:
        raise NameTaken(KINDS[table], name, taken_by)


class NamedRows(Rows[R]):
    """A table whose rows have names beside their ids."""

    def named(self, name: str, owner: str) -> str:
        """The id of the row with a name: the owner's own or, if it has none, the only one that it sees.

        Raises: UnknownRecord; AmbiguousName if there are several.
        """
        table = self.table
        query = select(table.c.id, table.c.owner).where(table.c.name == name, *self._seen, *_named(table))
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        found = [row.id for row in rows if row.owner == owner] or [row.id for row in rows]
        if not found:
            raise UnknownRecord(KINDS[table])
        if len(found) > 1:
            raise AmbiguousName(KINDS[table], name, found)
        return str(found[0])


def only(prefix: str, ids: Collection[str]) -> str:
    """The version whose id begins so, of all such. Raises UnknownRecord, AmbiguousName."""
    if not ids:
        raise UnknownRecord("version")
    if len(ids) > 1:
        raise AmbiguousName("version", prefix, sorted(ids))
    return next(iter(ids))


def _named(table: Table) -> Conditions:
    """A deleted data set gives its name back."""
    return (table.c.status != DatasetStatus.DELETED,) if table is datasets else ()
