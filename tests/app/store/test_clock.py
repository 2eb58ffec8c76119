"""Hosts whose clocks differ: what is in the database follows the database's clock."""

import logging
import time
from collections.abc import Callable

import pytest
from sqlalchemy import text

from sds_clip.app.store import Store
from sds_clip.app.store.clock import READ_EVERY_S, WARN_ABOVE_S
from sds_clip.app.store.states import JobKind
from tests.app.store.conftest import claimed, submitted
from tests.app.store.test_workers import worker
from tests.databases import Databases

HOUR_S = 3600.0
NEAR_S = 30.0
"""Far less than an hour, and more than a busy machine takes for a statement."""


class Wall:
    """This process's wall clock, set wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead_s)
        monkeypatch.setattr(
            "sds_clip.app.store.clock._SLOW_S", float("inf")
        )  # on a busy machine every answer is slow


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


@pytest.fixture
def url(postgresql_databases: Databases) -> str:
    return postgresql_databases.url(postgresql_databases.migrated())


@pytest.fixture
def databases(postgresql_databases: Databases) -> Databases:
    return postgresql_databases


def server_s(store: Store) -> float:
    with store.database.reading() as connection:
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
def test_host_with_a_wrong_clock_neither_takes_nor_loses_a_held_job(
    url: str, make_store: Callable[..., Store], wall: Wall, ahead_s: float
) -> None:
    right = make_store(url)
    job = submitted(right)
    lease = claimed(right)
    wall.ahead_s = ahead_s
    wrong = make_store(url)
    assert wrong.leases.claim(JobKind.FINETUNE, "other", 60) is None
    assert wrong.leases.settle_abandoned() == ()
    assert wrong.leases.renew(lease, 60)
    until = wrong.jobs.get(job.id).lease_until
    assert until == pytest.approx(server_s(wrong) + 60, abs=NEAR_S)
    wall.ahead_s = 0
    assert right.leases.claim(JobKind.FINETUNE, "other", 60) is None
    assert right.jobs.get(job.id).fence == lease.fence


def test_heartbeat_of_a_host_with_a_wrong_clock_is_alive_and_says_so(
    url: str, make_store: Callable[..., Store], wall: Wall
) -> None:
    right = make_store(url)
    wall.ahead_s = -HOUR_S
    wrong = make_store(url)
    wrong.check_program()
    wrong.workers.beat(worker("a"), clock_skew_s=wrong.clock_skew_s())
    wall.ahead_s = 0
    (seen,) = right.workers.list()
    assert seen.alive
    assert seen.clock_skew_s == pytest.approx(-HOUR_S, abs=NEAR_S)
    assert right.clock_skew_s() == pytest.approx(0, abs=NEAR_S)


def test_clock_that_is_set_while_the_process_runs_changes_nothing(
    url: str, make_store: Callable[..., Store], wall: Wall
) -> None:
    store = make_store(url)
    submitted(store)
    lease = claimed(store)
    wall.ahead_s = HOUR_S
    assert store.now() == pytest.approx(server_s(store), abs=NEAR_S)
    assert store.leases.claim(JobKind.FINETUNE, "other", 60) is None
    assert store.leases.renew(lease, 60)
    assert store.clock_skew_s() == pytest.approx(HOUR_S, abs=NEAR_S)


def test_log_warns_once_of_a_wrong_clock_and_again_after_it_was_right(
    url: str, make_store: Callable[..., Store], wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(url)

    def warnings(ahead_s: float) -> list[str]:
        caplog.clear()
        wall.ahead_s = ahead_s
        for _ in range(2):
            store.check_program()
        return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]

    assert warnings(0) == []
    (said,) = warnings(HOUR_S)
    assert "ahead of the database's" in said
    assert warnings(HOUR_S + READ_EVERY_S + 1) == []
    assert warnings(0) == []
    (said,) = warnings(-HOUR_S)
    assert "behind the database's" in said
    assert warnings(-READ_EVERY_S - WARN_ABOVE_S) == []


def test_sqlite_has_the_clock_of_its_host(
    sqlite_databases: Databases, make_store: Callable[..., Store], wall: Wall
) -> None:
    store = make_store(sqlite_databases.url(sqlite_databases.migrated()))
    wall.ahead_s = HOUR_S
    store.check_program()
    assert store.now() == pytest.approx(time.time(), abs=NEAR_S)
    assert store.clock_skew_s() == pytest.approx(0, abs=NEAR_S)
