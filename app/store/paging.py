"""Keyset pagination: a page starts right after a row, found by an index, however many rows there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from sqlalchemy import ColumnElement, Connection, Select, Table, func, select, tuple_

from sds_clip.app.errors import UnknownRecord
from sds_clip.app.store.part import KINDS, Part, R, known
from sds_clip.app.store.records import Page

MAX_LIMIT = 100
MAX_ROWS = 1000
"""Rows of one answer, or ids in one statement: SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535."""
MAX_NUMBER = 2**62
"""The largest number that every database accepts. A caller may send more digits."""


@dataclass(frozen=True)
class Search:
    """What rows are searched for, besides the values of columns. None does not count."""

    name: str | None = None
    """How the name begins, case-sensitively."""
    created_after: float | None = None
    created_before: float | None = None

    def conditions(self, table: Table) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.name is not None:  # SQLite's LIKE ignores case
            found.append(func.substr(table.c.name, 1, len(self.name)) == self.name)
        if self.created_after is not None:
            found.append(table.c.created_at > self.created_after)
        if self.created_before is not None:
            found.append(table.c.created_at < self.created_before)
        return found


EVERYTHING = Search()


class Rows(Part, Generic[R]):
    """A table whose rows have ids and times of creation."""

    record: type[R]

    def get(self, row_id: str) -> R:
        """A row, whatever its status. Raises UnknownRecord."""
        with self._database.reading() as connection:
            return self._known(connection, row_id)

    def _known(self, connection: Connection, row_id: str, *, lock: bool = False) -> R:
        of_id = self.table.c.id == row_id
        return known(connection, self.record, self.table, of_id, *self._seen, lock=lock)

    def _page(
        self,
        *,
        equal: Mapping[str, str | None],
        where: Sequence[ColumnElement[bool]],
        after: str | None,
        limit: int,
    ) -> Page[R]:
        """Rows, newest first.

        A row matches if its columns equal the values of `equal` that are not None, and all of `where` holds. For the
        caller, rows that it does not see do not exist, so `after` cannot name them either.

        There are at most `limit` rows, never more than MAX_LIMIT.

        Raises: UnknownRecord if no row has the id `after`.
        """
        limit = bounded(limit, 1, MAX_LIMIT)
        with self._database.reading() as connection:
            start = None if after is None else _position(connection, self.table, after, self._seen)
            query = page_query(self.table, equal, start).where(*self._seen, *where).limit(limit + 1)
            rows = self.record.all(connection, query)
        return Page(rows[:limit], len(rows) > limit)


def page_query(
    table: Table, equal: Mapping[str, str | None], start: tuple[float, str] | None
) -> Select[tuple[object, ...]]:
    """The statement of a page, whose query plan a test checks."""
    query = select(table).order_by(table.c.created_at.desc(), table.c.id.desc())
    for column, value in equal.items():
        if value is not None:
            query = query.where(table.c[column] == value)
    if start is not None:
        query = query.where(tuple_(table.c.created_at, table.c.id) < tuple_(*start))
    return query


def bounded(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


def _position(
    connection: Connection, table: Table, row_id: str, seen: Sequence[ColumnElement[bool]]
) -> tuple[float, str]:
    query = select(table.c.created_at, table.c.id).where(table.c.id == row_id, *seen)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownRecord(KINDS[table], param="after")
    return row.created_at, row.id
