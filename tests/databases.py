"""Databases for tests: SQLite, and a real PostgreSQL. The fixtures are in `tests/conftest.py`."""

import contextlib
import itertools
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from sds_clip.app.store import Store
from sds_clip.app.store.tables import metadata
from tests.postgres import PostgreSQL

KINDS = ("sqlite", "postgresql")
on_both = pytest.mark.parametrize("databases", KINDS, indirect=True)
"""Runs a test on SQLite, where all run, and on PostgreSQL."""
on_both_if_long = pytest.mark.parametrize(
    "databases", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True
)
"""The same for tests of whole processes, which are on PostgreSQL only in `make test-long`."""

_TABLES = [table.name for table in metadata.sorted_tables]


class Databases:
    """Migrated databases of one kind: a copy of one file for each test, or one database that is emptied."""

    def __init__(self, kind: str, folder: Path, server: PostgreSQL | None) -> None:
        self.kind = kind
        self._folder = folder
        self._server = server
        self._numbers = itertools.count()
        self._template = self.empty()
        store = Store(self.url(self._template))
        store.migrate()
        store.close()

    def empty(self) -> str:
        """The name of a database without tables."""
        if self._server is not None:
            return self._server.create()
        return str(next(self._numbers))

    def migrated(self) -> str:
        """The name of a database with every table, and nothing in them. PostgreSQL takes half a second
        to make a database, so there it is always the same.
        """
        if self._server is not None:
            self._clear()
            return self._template
        name = self.empty()
        shutil.copyfile(self._folder / self._template, self._folder / name)
        return name

    def url(self, name: str) -> str:
        return f"sqlite:///{self._folder / name}" if self._server is None else self._server.url(name)

    def _clear(self) -> None:
        """Empty every table. Whoever is still connected may hold a row, and is sent away."""
        with psycopg.connect(self.url(self._template)) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            for name in reversed(_TABLES):
                connection.execute(f"DELETE FROM {name}".encode())


@contextmanager
def held(url: str, timeout_s: float = 30.0) -> Iterator[None]:
    """While somebody holds the whole database, and nobody else reads or writes.

    Raises: TimeoutError where others are within a transaction for so long.
    """
    with contextlib.ExitStack() as closing:
        try:
            if url.startswith("sqlite:"):
                file = url.removeprefix("sqlite:///")
                sqlite = sqlite3.connect(file, isolation_level=None, timeout=timeout_s)
                closing.callback(sqlite.close)
                sqlite.execute("BEGIN EXCLUSIVE")
            else:
                options = f"-c lock_timeout={round(1000 * timeout_s)}"
                postgresql = psycopg.connect(url, options=options)
                closing.callback(postgresql.close)
                postgresql.execute(f"LOCK TABLE {', '.join(_TABLES)} IN ACCESS EXCLUSIVE MODE".encode())
        except (sqlite3.OperationalError, psycopg.OperationalError) as error:
            raise TimeoutError(f"the database is in use: {error}") from error
        yield
