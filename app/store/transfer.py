"""All rows of a database as of one moment, and their way into another one, which may be of the other kind.

The tables are read as they are in the database, and not as this release defines them. So the rows of an older
release can be read, and are put into tables of that release before these are migrated.
"""

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    Connection,
    Integer,
    MetaData,
    Table,
    event,
    exc,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)

from sds_clip.app.errors import ConfigurationError
from sds_clip.app.store.database import Database
from sds_clip.app.store.migrate import HEAD, check_known, lock_tables, revision_of, upgrade
from sds_clip.app.store.tables import Choice, metadata

Row = tuple[str, dict[str, Any]]
"""The name of a table, and a row of it by columns. All values have a form in JSON."""

_REVISION_TABLE = "alembic_version"
# Workers write their rows and leases again as long as they live, and a program the oldest one that may run beside it. A
# restored system has a data folder of its own, and its counters begin at 0, as does the use of its slots.
_LEFT_OUT = ("workers", "leases", "oldest_program", "data_folder", "failures", "slot_use")
_ROWS_AT_ONCE = 500
_COPY_TIMEOUT_S = 10.0


class WrongRows(ValueError):
    """The rows do not fit the tables of their revision."""


@contextmanager
def snapshot(database: Database, scratch: Path) -> Iterator[tuple[str, Connection]]:
    """Yield the revision of the tables, and a transaction that sees all tables as of one moment.

    No writer waits for the block. On SQLite, where writers wait for readers, the block reads a copy, which is
    made in `scratch` in one step and is removed afterwards.

    Raises: StoreUnavailable; ConfigurationError if there are no tables, or they are newer than this program; OSError if
    there is no room for the copy.
    """
    if not database.is_sqlite:
        with database.reading_one_moment() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            yield _known_revision(connection), connection
        return
    copy = scratch / "snapshot.db"
    copy.unlink(missing_ok=True)
    with database.reading() as connection, closing(sqlite3.connect(copy)) as target:
        connection.execute(text("SELECT count(*) FROM sqlite_master"))  # waits for the lock
        source = connection.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        target.execute("PRAGMA synchronous=OFF")
        try:
            source.backup(target)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(copy)) from error
    copied = Database(
        URL.create("sqlite", database=str(copy.absolute())).render_as_string(), timeout_s=_COPY_TIMEOUT_S
    )
    try:
        with copied.reading() as connection:
            yield _known_revision(connection), connection
    finally:
        copied.close()
        copy.unlink(missing_ok=True)


def read_rows(connection: Connection, only: Sequence[str] = ()) -> Iterator[Row]:
    """Yield all rows, or those of some tables: a row always after those that it refers to in other tables."""
    for table in _tables(connection):
        if table.name not in _LEFT_OUT and (not only or table.name in only):
            rows = connection.execute(select(table).execution_options(yield_per=_ROWS_AT_ONCE))
            for row in rows.mappings():
                yield table.name, dict(row)


def rows_in_the_way(connection: Connection) -> Mapping[str, int]:
    """The tables that have rows, with how many."""
    counts = {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in _tables(connection)
        if table.name not in _LEFT_OUT
    }
    return {name: count for name, count in counts.items() if count}


def replace_tables(connection: Connection, revision: str, rows: Iterable[Row]) -> None:
    """Put the rows into new tables of their revision, and migrate these. The present tables are dropped.

    Raises: StoreUnavailable, WrongRows; ConfigurationError for a newer revision.
    """
    lock_tables(connection)
    present = MetaData()
    names = set(inspect(connection).get_table_names()) & {*metadata.tables, _REVISION_TABLE}
    if names:
        present.reflect(connection, only=sorted(names))
        present.drop_all(connection)
    upgrade(connection, revision)
    try:
        _insert(connection, rows)
    except (exc.IntegrityError, exc.DataError, exc.ProgrammingError) as error:
        raise WrongRows(str(error.orig)) from error
    except exc.StatementError as error:
        if type(error) is not exc.StatementError:
            raise
        raise WrongRows(str(error.orig)) from error
    except (OverflowError, UnicodeError) as error:  # of SQLite's driver
        raise WrongRows(str(error)) from error
    _continue_numbers(connection)
    upgrade(connection, HEAD)


def _known_revision(connection: Connection) -> str:
    revision = revision_of(connection)
    if revision is None:
        raise ConfigurationError(
            "The database has no tables of this program. Check SDS_CLIP_DATABASE_URL and SDS_CLIP_DATA_DIR."
        )
    check_known(revision)
    return revision


def _tables(connection: Connection) -> Sequence[Table]:
    """The tables as they are in the database, each after those that it refers to."""
    found = MetaData()

    def none_as_null(_inspector: object, _table: object, column: dict[str, Any]) -> None:
        if isinstance(column["type"], JSON):
            column["type"] = JSON(none_as_null=True)

    event.listen(found, "column_reflect", none_as_null)
    names = set(inspect(connection).get_table_names()) & set(metadata.tables)
    if names:
        found.reflect(connection, only=sorted(names))
    return found.sorted_tables


def _insert(connection: Connection, rows: Iterable[Row]) -> None:
    tables = {table.name: table for table in _tables(connection)}
    for name, group in groupby(rows, itemgetter(0)):
        if name not in tables or name in _LEFT_OUT:
            raise WrongRows(f"there is no table {name}")
        table, later = tables[name], []
        own = [key.parent.name for key in table.foreign_keys if key.column.table is table]
        batch: list[dict[str, Any]] = []
        for _, row in group:
            if row.keys() != set(table.columns.keys()):
                raise WrongRows(f"a row of the table {name} has other columns")
            _check_choices(name, row)
            # A row may refer to one that comes after it in its own table.
            later += [(column, row["id"], row[column]) for column in own if row[column] is not None]
            batch.append(row | dict.fromkeys(own))
            if len(batch) == _ROWS_AT_ONCE:
                connection.execute(insert(table), batch)
                batch = []
        if batch:
            connection.execute(insert(table), batch)
        for column, row_id, value in later:
            connection.execute(update(table).where(table.c.id == row_id).values({column: value}))


def _check_choices(table: str, row: Mapping[str, Any]) -> None:
    """Check what no reader could read. Raises WrongRows."""
    for column in metadata.tables[table].columns:
        value = row.get(column.name)
        if isinstance(column.type, Choice) and value is not None and value not in list(column.type.of):
            raise WrongRows(
                f"the {column.name} of a row of the table {table} is {value!r}, which is not known"
            )


def _continue_numbers(connection: Connection) -> None:
    """Let new rows get numbers after those that are there. SQLite does so by itself."""
    if connection.dialect.name == "sqlite":
        return
    for table in _tables(connection):
        for column in table.primary_key:
            if not isinstance(column.type, Integer):
                continue
            names = {"table": table.name, "column": column.name}
            sequence = connection.scalar(text("SELECT pg_get_serial_sequence(:table, :column)"), names)
            highest = connection.scalar(select(func.max(column)))
            if sequence is not None and highest is not None:
                connection.execute(
                    text("SELECT setval(:sequence, :highest)"), {"sequence": sequence, "highest": highest}
                )
