"""The connections of PostgreSQL: a warning before they are used up, and a clear error after that."""

import logging
from contextlib import ExitStack

import psycopg
import pytest

from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.store import Store
from sds_clip.app.store.connections import PER_WORKER
from tests.app.store.test_workers import worker
from tests.databases import Databases


@pytest.fixture
def databases(postgresql_databases: Databases) -> Databases:
    return postgresql_databases


@pytest.fixture
def limit(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW max_connections").fetchone()
        reserved = connection.execute("SHOW superuser_reserved_connections").fetchone()
    assert row is not None
    assert reserved is not None
    return int(row[0]) - int(reserved[0])


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_workers_that_need_most_connections_are_a_warning_at_the_next_start(
    store: Store, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    few = int(0.8 * limit) // PER_WORKER
    for number in range(few):
        store.workers.beat(worker(f"w{number}"))
    store.migrate()
    assert warnings(caplog) == []
    store.workers.beat(worker("one too many"))
    store.migrate()
    (said,) = warnings(caplog)
    assert said.startswith(f"PostgreSQL allows {limit} connections.")
    assert f"{few + 1} living workers need about {PER_WORKER * (few + 1)}" in said


def test_connections_in_use_are_a_warning_and_none_left_is_a_clear_error(
    url: str, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as closing:
        for _ in range(int(0.85 * limit)):
            closing.enter_context(psycopg.connect(url))
        store = Store(url)
        closing.callback(store.close)
        store.migrate()
        (said,) = warnings(caplog)
        assert "are in use" in said
        store.close()
        with pytest.raises(psycopg.OperationalError):  # noqa: PT012
            while True:
                closing.enter_context(psycopg.connect(url))
        with pytest.raises(StoreUnavailable, match=r"no connection left; try again later"):
            Store(url).workers.list()
        assert "Raise max_connections there" in caplog.text
