"""The connection: URLs, what a database that is away looks like, and the plans of the statements that must scale."""

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import insert, text

from sds_clip.app.errors import ConfigurationError, StoreUnavailable
from sds_clip.app.store import Store
from sds_clip.app.store.job_events import events_query
from sds_clip.app.store.migrate import MIGRATIONS
from sds_clip.app.store.owned import seen_by
from sds_clip.app.store.paging import page_query
from sds_clip.app.store.records import JobError
from sds_clip.app.store.shares import FIRST_OF_OWNER
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.app.store.tables import events, jobs, versions
from sds_clip.app.store.versions import begun_query
from tests.app.store.conftest import FakeClock, claimed, submitted
from tests.databases import Databases
from tests.postgres import PostgreSQL
from tests.worker.waiting import until


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://root:secret@host/db", "sqlite://", "sqlite:///:memory:", "sqlite3:///a.db"],
)
def test_other_urls_are_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:////PATH") as caught:
        Store(url)
    assert "secret" not in str(caught.value)


def test_sqlite_writes_through_to_the_disk_and_keeps_no_wal(
    sqlite_databases: Databases, make_store: Callable[..., Store]
) -> None:
    store = make_store(sqlite_databases.url(sqlite_databases.migrated()), timeout_s=3)
    with store.database.reading() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "truncate", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 3000}


def test_sqlite_file_is_made_in_a_new_folder(tmp_path: Path, make_store: Callable[..., Store]) -> None:
    store = make_store(f"sqlite:///{tmp_path}/new/folder/store.db")
    store.migrate()
    assert submitted(store).status is JobStatus.QUEUED


def test_connection_in_use_when_the_store_closes_is_closed_after_its_transaction(
    postgresql_databases: Databases, make_store: Callable[..., Store]
) -> None:
    url = postgresql_databases.url(postgresql_databases.migrated())
    closing, watching = make_store(url), make_store(url)
    number = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid = :pid"
    with closing.database.reading() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        closing.close()
    # The server notices a closed connection a moment later.
    until(lambda: _count(watching, number, pid) == 0)


def _count(store: Store, statement: str, pid: int) -> int:
    with store.database.reading() as connection:
        return int(connection.execute(text(statement), {"pid": pid}).scalar_one())


def test_locked_sqlite_is_unavailable_until_it_is_free(
    sqlite_databases: Databases, make_store: Callable[..., Store]
) -> None:
    url = sqlite_databases.url(sqlite_databases.migrated())
    store = make_store(url, timeout_s=0.1)
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for ask in (lambda: submitted(store), lambda: store.jobs.list(), store.migrate):
        with pytest.raises(StoreUnavailable) as caught:
            ask()
        assert (caught.value.status, caught.value.retryable, caught.value.code) == (
            503,
            True,
            "store_unavailable",
        )
    other.execute("ROLLBACK")
    other.close()
    assert submitted(store).status is JobStatus.QUEUED


@pytest.mark.parametrize("broken", ["folder", "not a database", "cut short"])
def test_sqlite_that_cannot_be_read_is_unavailable(
    sqlite_databases: Databases, make_store: Callable[..., Store], tmp_path: Path, broken: str
) -> None:
    path = tmp_path / "store.db"
    if broken == "folder":
        path.mkdir()
    elif broken == "not a database":
        path.write_bytes(b"hello " * 1000)
    else:
        whole = Path(
            sqlite_databases.url(sqlite_databases.migrated()).removeprefix("sqlite:///")
        ).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreUnavailable):
        submitted(make_store(f"sqlite:///{path}"))


def test_full_sqlite_is_unavailable_and_what_was_there_stays(
    sqlite_databases: Databases, make_store: Callable[..., Store]
) -> None:
    store = make_store(sqlite_databases.url(sqlite_databases.migrated()))
    job = submitted(store)
    with pytest.raises(StoreUnavailable, match="disk of the database is full"):
        _write_beyond_the_end(store, job.id)
    store.close()  # the limit was the connection's
    assert store.jobs.get(job.id) == job
    assert len(store.events.events(job.id)) == 1


def test_postgresql_that_is_stopped_is_unavailable_until_it_is_back(
    postgresql: PostgreSQL, postgresql_databases: Databases, make_store: Callable[..., Store]
) -> None:
    store = make_store(postgresql_databases.url(postgresql_databases.migrated()), timeout_s=2)
    job = submitted(store)
    try:
        with store.database.writing() as connection:
            postgresql.stop()
            connection.execute(text("SELECT 1"))
    except StoreUnavailable:
        pass
    else:
        pytest.fail("the transaction that was cut is unavailable")
    try:
        for ask in (lambda: submitted(store), lambda: store.jobs.get(job.id), store.migrate):
            with pytest.raises(StoreUnavailable):
                ask()
    finally:
        postgresql.start()
    assert store.jobs.get(job.id) == job


def test_postgresql_row_that_stays_locked_is_unavailable(
    postgresql_databases: Databases, make_store: Callable[..., Store]
) -> None:
    url = postgresql_databases.url(postgresql_databases.migrated())
    store, patient, other = make_store(url, timeout_s=0.2), make_store(url), make_store(url)
    job = submitted(patient)
    with other.database.writing() as connection:
        connection.execute(text("SELECT id FROM jobs FOR UPDATE"))
        with pytest.raises(StoreUnavailable):
            store.jobs.request_cancel(job.id)
        assert patient.leases.claim(JobKind.FINETUNE, "slot", 60) is None  # skips what others hold
    assert patient.jobs.request_cancel(job.id).status is JobStatus.CANCELLED


def test_mistakes_of_the_program_are_not_taken_for_a_database_that_is_away(store: Store) -> None:
    with pytest.raises(Exception, match="nonsense") as caught, store.database.writing() as connection:
        connection.execute(text("SELECT nonsense"))
    assert not isinstance(caught.value, StoreUnavailable)


def _write_beyond_the_end(store: Store, job_id: str) -> None:
    with store.database.writing() as connection:
        connection.execute(text("PRAGMA max_page_count = 1"))
        for number in range(2, 50):
            values = {"job_id": job_id, "number": number, "level": "info", "type": "x", "at": 0.0}
            connection.execute(insert(events).values(**values, message="x" * 10_000))


PAGES = {
    "jobs_by_time": {},
    "jobs_by_status": {"status": "failed"},
    "jobs_by_kind": {"kind": "finetune"},
    "jobs_by_kind_and_status": {"kind": "finetune", "status": "failed"},
    "jobs_by_owner": {"owner": ""},
    "jobs_by_owner_and_status": {"owner": "", "status": "failed"},
}


def test_statements_that_must_scale_read_an_index_in_its_order(store: Store, databases: Databases) -> None:
    statements = [
        *((index, page_query(jobs, equal, None).limit(21)) for index, equal in PAGES.items()),
        *((index, page_query(jobs, equal, (1.6e9, "job_x")).limit(21)) for index, equal in PAGES.items()),
        ("events", events_query(_fill(store, 3000), 5).limit(100)),
        ("jobs_in_turn", FIRST_OF_OWNER.params(kind=JobKind.FINETUNE, now=1.7e9, owner="", devices=1)),
    ]
    for index, statement in statements:
        plan = _plan(store, statement)
        if databases.kind == "sqlite":
            assert index in plan
            assert "SEARCH" in plan or f"SCAN jobs USING INDEX {index}" in plan
            assert "TEMP B-TREE" not in plan
        else:  # which may take another of the indexes, by what it knows of the rows
            assert "Index Scan" in plan
            assert "Seq Scan" not in plan
            assert "Sort" not in plan


def test_beginning_of_a_version_reads_a_range_of_the_primary_key(store: Store, databases: Databases) -> None:
    values = {"description": {}, "size_bytes": 0, "status": "ready", "created_at": 0.0}
    with store.database.writing() as connection:
        connection.execute(insert(versions), [{**values, "id": f"{n:08x}" * 8} for n in range(3000)])
        connection.execute(text("ANALYZE"))

    assert list(store.versions.begun("00000010")) == ["00000010" * 8]
    for owner in (None, "alice"):
        plan = _plan(store, begun_query("00000010", seen_by(owner)))
        if databases.kind == "sqlite":
            assert "(id>? AND id<?)" in plan
        else:
            assert re.search(r"Index Cond: .*\bid\b.* >= .*\bid\b.* <= ", plan)


def _fill(store: Store, count: int) -> str:
    """Many jobs that have ended, as copies of one of each sort, and one in the queue.

    Returns the id of a job with as many events.
    """
    store.leases.fail(_next(store, JobKind.FINETUNE), JobError("boom", "Boom."))
    store.leases.succeed(_next(store, JobKind.EVALUATE))
    with store.database.writing() as connection:
        rows = connection.execute(jobs.select()).mappings().all()
        copies = [
            {**row, "id": f"{row['id']}_{n}", "created_at": 1.6e9 + n, "finished_at": 1.6e9 + n}
            for n in range(count // 2)
            for row in rows
        ]
        connection.execute(insert(jobs), copies)
        event = {"job_id": rows[0]["id"], "level": "info", "type": "x", "message": "", "at": 0.0}
        connection.execute(insert(events), [{**event, "number": n} for n in range(10, count)])
    submitted(store)
    with store.database.writing() as connection:
        connection.execute(text("ANALYZE"))
    return str(event["job_id"])


def _next(store: Store, kind: JobKind) -> Any:
    submitted(store, kind=kind)
    return claimed(store, kind=kind)


def _plan(store: Store, statement: Any) -> str:
    with store.database.reading() as connection:
        compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
        if store.database.is_sqlite:
            values = tuple(compiled.params[name] for name in compiled.positiontup)
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values)
            return "\n".join(str(row[-1]) for row in rows)
        rows = connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params)
        return "\n".join(row[0] for row in rows)


def test_jobs_of_the_first_tables_are_taken_over(
    databases: Databases, make_store: Callable[..., Store], clock: FakeClock
) -> None:
    """One that had come on at its fourth attempt, which had raised its limit, and one that has failed."""
    store = make_store(databases.url(databases.empty()), clock=clock)
    upgrade_to(store, "0001")
    values = {
        "kind": "finetune", "request": "{}", "step": 7, "attempt": 4, "max_attempts": 6, "fence": 4,
        "lease_owner": "gone", "lease_until": clock.now, "not_before": 0.0, "created_at": 1.0, "owner": "",
        "payload_hash": "", "metadata": "{}", "event_count": 0,
    }  # fmt: skip
    columns = ", ".join(["id", "status", *values])
    names = ", ".join(f":{name}" for name in ["id", "status", *values])
    with store.database.writing() as connection:
        for status in ("running", "failed"):
            row = {"id": status, "status": status, **values}
            connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({names})"), row)
    store.migrate()
    failed, running = store.jobs.get("failed"), store.jobs.get("running")
    assert (failed.attempt, failed.max_attempts) == (4, 6)
    assert (running.attempt, running.max_attempts, running.interruptions, running.max_interruptions) == (
        1, 3, 0, 100,
    )  # fmt: skip
    lease = claimed(store)
    assert (lease.job_id, lease.fence, store.jobs.get("running").run_time_s) == ("running", 5, 0.0)
    assert store.jobs.request_retry("failed").status is JobStatus.QUEUED


def upgrade_to(store: Store, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with store.database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
