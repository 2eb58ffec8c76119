"""Rows as of one moment, beside writers."""

from pathlib import Path

import pytest

from sds_clip.app.errors import ConfigurationError
from sds_clip.app.store import Store
from sds_clip.app.store.transfer import read_rows, rows_in_the_way, snapshot
from tests.app.store.conftest import submitted
from tests.databases import Databases


def test_a_snapshot_is_of_one_moment_and_no_writer_waits_for_it(store: Store, tmp_path: Path) -> None:
    before = submitted(store)
    with snapshot(store.database, tmp_path) as (_, connection):
        rows = read_rows(connection)
        table, first = next(rows)
        after = submitted(store)
        assert (table, first["id"]) == ("jobs", before.id)
        assert after.id not in {row.get("id") for _, row in rows}
        assert after.id not in {row.get("id") for _, row in read_rows(connection)}
    assert store.jobs.get(after.id) == after
    assert list(tmp_path.iterdir()) == []


def test_rows_in_the_way_are_counted(store: Store) -> None:
    with store.database.reading() as connection:
        assert rows_in_the_way(connection) == {}
    for _ in range(2):
        submitted(store)
    with store.database.reading() as connection:
        assert rows_in_the_way(connection) == {"jobs": 2, "events": 2}


def test_a_database_without_tables_is_no_system(databases: Databases, tmp_path: Path) -> None:
    store = Store(databases.url(databases.empty()))
    with (
        pytest.raises(ConfigurationError, match="no tables of this program"),
        snapshot(store.database, tmp_path),
    ):
        pass
    store.close()
