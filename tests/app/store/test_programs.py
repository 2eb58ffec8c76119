"""Programs of two releases over one database: which may go on, and which jobs and data sets they leave alone."""

from collections.abc import Callable

import pytest
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, inspect, text

from sds_clip.app.errors import ConfigurationError
from sds_clip.app.store import Store
from sds_clip.app.store.migrate import MIGRATIONS, NEWEST, OLDEST
from sds_clip.app.store.records import JOB_FORMAT, Lease
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.app.store.tables import metadata
from sds_clip.app.store.verdicts import check_of
from tests.app.store.conftest import FakeClock, claimed, submitted
from tests.app.store.test_database import upgrade_to
from tests.app.store.test_workers import worker
from tests.databases import Databases

NEXT = "9998"


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config)


@pytest.fixture
def fresh(databases: Databases, make_store: Callable[..., Store], clock: FakeClock) -> Store:
    """A store over a database without tables."""
    return make_store(databases.url(databases.empty()), clock=clock)


def migrate_as_newer(store: Store, oldest: str) -> None:
    """What a newer program does to the database, as far as this one can see it."""
    with store.database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :next"), {"next": NEXT})
        connection.execute(text("UPDATE oldest_program SET revision = :oldest"), {"oldest": oldest})
        connection.execute(text("ALTER TABLE jobs ADD COLUMN news VARCHAR DEFAULT '' NOT NULL"))


def test_both_borders_are_migrations_of_this_program() -> None:
    assert scripts().get_current_head() == NEWEST
    assert scripts().get_revision(OLDEST) is not None


def test_program_of_the_release_before_starts_and_works_over_newer_tables(fresh: Store) -> None:
    fresh.migrate()
    migrate_as_newer(fresh, oldest=NEWEST)
    fresh.migrate()
    fresh.check_program()
    submitted(fresh)
    assert fresh.leases.succeed(claimed(fresh)).status is JobStatus.SUCCEEDED
    with fresh.database.reading() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == NEXT
        assert connection.execute(text("SELECT revision FROM oldest_program")).scalar_one() == NEWEST


def test_program_of_two_releases_before_neither_starts_nor_goes_on(fresh: Store) -> None:
    fresh.migrate()
    fresh.check_program()
    migrate_as_newer(fresh, oldest=NEXT)
    with pytest.raises(ConfigurationError, match="newer version of this program"):
        fresh.migrate()
    with pytest.raises(ConfigurationError, match="start the newer release"):
        fresh.check_program()


def test_tables_of_another_program_are_refused(fresh: Store) -> None:
    with fresh.database.writing() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('abc')"))
    with pytest.raises(ConfigurationError, match="newer version of this program"):
        fresh.migrate()


def test_tables_of_a_checkout_between_two_releases_are_refused_with_the_way_on(fresh: Store) -> None:
    fresh.migrate()
    with fresh.database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0012'"))
    with pytest.raises(ConfigurationError, match=r"revision 0012, which no release has.*318794d3"):
        fresh.migrate()


def test_database_keeps_the_oldest_program_of_the_newest_release(fresh: Store) -> None:
    """One of the same tables may be of an earlier release, and allows less."""
    fresh.migrate()
    with fresh.database.writing() as connection:
        assert connection.execute(text("SELECT revision FROM oldest_program")).scalar_one() == OLDEST
        connection.execute(text("UPDATE oldest_program SET revision = :newest"), {"newest": NEWEST})
    fresh.migrate()
    with fresh.database.reading() as connection:
        assert connection.execute(text("SELECT revision FROM oldest_program")).scalar_one() == NEWEST


def test_tables_two_releases_old_are_not_migrated_while_their_workers_run(
    fresh: Store, clock: FakeClock
) -> None:
    upgrade_to(fresh, "0005")
    with fresh.database.writing() as connection:
        _insert(
            connection, "workers", id="host/7/finetune", host="host", pid=7, queue="finetune", device="cpu",
            version="0", started_at=clock.now, seen_at=clock.now,
        )  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"host/7/finetune\. Stop all its processes first"):
        fresh.migrate()
    clock.advance(60)
    fresh.migrate()


def test_first_tables_are_not_migrated_while_a_lease_lasts(fresh: Store, clock: FakeClock) -> None:
    """They have no heartbeats yet."""
    upgrade_to(fresh, "0001")
    with fresh.database.writing() as connection:
        _insert(
            connection, "jobs", id="a", status="running", kind="finetune", request="{}", step=0, attempt=1,
            max_attempts=3, fence=1, lease_owner="slot", lease_until=clock.now + 50, not_before=0.0,
            created_at=1.0, owner="", payload_hash="", metadata="{}", event_count=0,
        )  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"slot\. Stop all its processes first"):
        fresh.migrate()
    clock.advance(60)
    fresh.migrate()
    assert claimed(fresh) == Lease("a", 2)


def test_tables_of_the_release_before_are_migrated_while_its_workers_run(
    fresh: Store, clock: FakeClock
) -> None:
    upgrade_to(fresh, OLDEST)
    with fresh.database.writing() as connection:
        _insert(
            connection, "workers", id="host/7/finetune", host="host", pid=7, queue="finetune", device="cpu",
            version="0", started_at=clock.now, seen_at=clock.now,
        )  # fmt: skip
    fresh.migrate()
    (living,) = fresh.workers.list()
    assert (living.alive, living.clock_skew_s) == (True, None)


def test_migrations_after_the_release_before_only_add(fresh: Store) -> None:
    """Its programs go on over the new tables. What takes something away must raise `OLDEST` first."""
    upgrade_to(fresh, OLDEST)
    with fresh.database.reading() as connection:
        before = {name: _columns(connection, name) for name in _tables(connection)}
    statements: list[str] = []
    with fresh.database.writing() as connection:
        event.listen(
            connection, "before_cursor_execute", lambda c, cursor, statement, *_: statements.append(statement)
        )
        context = MigrationContext.configure(connection)
        for script in reversed(list(scripts().iterate_revisions(NEWEST, OLDEST))):
            with Operations.context(context):
                script.module.upgrade()
        changes = [one.split() for one in statements if one.split()[0] in ("ALTER", "DROP", "DELETE")]
        assert changes
        changes = [one for one in changes if one[:2] != ["DROP", "INDEX"]]  # costs time at most
        # A program of the release before writes rows without the new columns.
        assert {(one[0], one[3]) for one in changes} == {("ALTER", "ADD")}
        for name, columns in before.items():
            after = _columns(connection, name)
            assert columns.items() <= after.items()
            assert [column for column in after.keys() - columns.keys() if not after[column]] == []


def test_job_that_only_a_newer_worker_knows_stays_in_the_queue(store: Store) -> None:
    news, known = submitted(store, format=JOB_FORMAT + 1), submitted(store, format=0)
    due = store.leases.next_due(JobKind.FINETUNE)
    assert due is not None
    assert due.id == known.id
    assert claimed(store).job_id == known.id
    assert store.leases.claim(JobKind.FINETUNE, "slot", 60) is None
    left = store.jobs.get(news.id)
    assert (left.status, left.attempt, left.event_count) == (JobStatus.QUEUED, 0, 1)
    assert store.jobs.request_cancel(news.id).status is JobStatus.CANCELLED


def test_job_that_a_worker_has_begun_is_left_to_workers_that_know_its_checkpoints(store: Store) -> None:
    job = submitted(store, format=0)
    lease = claimed(store)
    assert store.leases.release(lease).format == JOB_FORMAT
    with store.database.writing() as connection:
        connection.execute(text("UPDATE jobs SET format = :newer"), {"newer": JOB_FORMAT + 1})
    assert store.leases.claim(JobKind.FINETUNE, "slot", 60) is None
    assert store.jobs.get(job.id).fence == lease.fence


def test_data_set_of_an_unknown_format_is_left_to_another_worker(store: Store) -> None:
    news = store.datasets.add(name="a", format="news", source={})
    known = store.datasets.add(name="b", format="pairs", source={})
    assert store.datasets.lack_checks(("pairs", "winoground"))
    assert [check.id for check in store.datasets.enlist_checks(("pairs", "winoground"))] == [
        check_of(known.id)
    ]
    assert not store.datasets.lack_checks(("pairs", "winoground"))
    assert [check.id for check in store.datasets.enlist_checks(("pairs", "news"))] == [check_of(news.id)]


def test_worker_of_this_release_says_how_its_clock_differs(store: Store) -> None:
    store.workers.beat(worker("a"), clock_skew_s=-2.5)
    (seen,) = store.workers.list()
    assert seen.clock_skew_s == pytest.approx(-2.5)


def _insert(connection: Connection, table: str, **values: object) -> None:
    columns, names = ", ".join(values), ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({names})"), values)


def _tables(connection: Connection) -> list[str]:
    return [name for name in inspect(connection).get_table_names() if name in metadata.tables]


def _columns(connection: Connection, table: str) -> dict[str, bool]:
    """The columns, and whether a row may be written without them."""
    found = inspect(connection).get_columns(table)
    return {each["name"]: each["nullable"] or each.get("default") is not None for each in found}
