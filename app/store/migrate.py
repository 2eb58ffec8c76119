"""Brings the tables up to date when a process starts: one process at a time, all or nothing.

The programs of two successive releases may use the tables at the same time
(docs/decisions/0056-rolling-restart-and-clocks.md). `OLDEST` is the border between them and what is older. Migrations
after it only add, and the database keeps it, so that a program that is too old finds out.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, insert, inspect, select, text

from sds_clip.app.errors import ConfigurationError
from sds_clip.app.store.clock import Clock
from sds_clip.app.store.database import Database
from sds_clip.app.store.states import HELD
from sds_clip.app.store.tables import jobs, oldest_program, workers
from sds_clip.app.store.values import lock_number
from sds_clip.app.store.workers import LIVING_S

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "head"
REVISIONS = sorted(file.name[:4] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))
NEWEST = REVISIONS[-1]
"""The newest migration of this program."""
OLDEST = "0007"
"""The newest migration of the release before this one. Each release sets it anew (docs/how-to/upgrade.md)."""
_LOCK = lock_number("sds-clip", "migrate")
_WAIT_S = 60


def migrate(database: Database, now: Clock) -> None:
    """Apply the missing migrations in one transaction. Processes that start meanwhile wait, and find it done.

    Tables of the next release are used as they are.

    Raises: StoreUnavailable; ConfigurationError if this program is too old for the tables, or if a program is running
    that would be too old for them afterwards.
    """
    with database.writing() as connection:
        lock_tables(connection)
        before = revision_of(connection)
        if before is not None and before > NEWEST:
            _check_still_allowed(connection, before)
            return
        if before is not None and before not in REVISIONS:
            raise ConfigurationError(
                f"The database has revision {before}, which no release has. Start the service of commit 318794d3 "
                "once, which upgrades it to 0017, and then this one."
            )
        if before is not None and before < OLDEST:
            _check_nothing_runs(connection, now())
        upgrade(connection)
        keep_oldest(connection, OLDEST)
    if before is None:
        logger.info("The database is new; its tables were created.")
    elif before != NEWEST:
        logger.info("The database was upgraded from revision %s to %s.", before, NEWEST)


def check_program(database: Database) -> None:
    """Raise ConfigurationError if the tables were migrated meanwhile, and this program has become too old for them."""
    with database.reading() as connection:
        oldest = connection.execute(select(oldest_program.c.revision)).scalar_one_or_none()
    if oldest is not None and oldest > NEWEST:
        raise ConfigurationError(
            f"This program is too old for its database, which a newer one has migrated: it has revision {NEWEST}, and "
            f"{oldest} is the oldest that may go on. Stop it, and start the newer release."
        )


def keep_oldest(connection: Connection, revision: str) -> None:
    """From now on, let no program use the tables that does not know this migration."""
    kept = connection.execute(select(oldest_program.c.revision)).scalar_one_or_none()
    if kept is None or kept < revision:
        connection.execute(delete(oldest_program))
        connection.execute(insert(oldest_program).values(revision=revision))


def _check_still_allowed(connection: Connection, revision: str) -> None:
    is_ours = inspect(connection).has_table(oldest_program.name)
    oldest = connection.execute(select(oldest_program.c.revision)).scalar_one_or_none() if is_ours else None
    if oldest is None or oldest > NEWEST:
        raise _newer(f"its revision is {revision}, and this program has {NEWEST}")
    logger.warning(
        "The database belongs to the next release (revision %s; this program has %s). This program may go on beside "
        "it until everything is upgraded.",
        revision,
        NEWEST,
    )


def _check_nothing_runs(connection: Connection, now: float) -> None:
    """Raise ConfigurationError if a worker lives, or a lease lasts, since the first tables have no workers.

    Services leave no trace.
    """
    held = select(jobs.c.lease_owner).where(jobs.c.status.in_(sorted(HELD)), jobs.c.lease_until > now)
    living = set(connection.execute(held).scalars())
    if inspect(connection).has_table(workers.name):
        living |= set(
            connection.execute(select(workers.c.id).where(workers.c.seen_at >= now - LIVING_S)).scalars()
        )
    if living:
        raise ConfigurationError(
            f"A release older than the one before this has made the database, and its workers are still running: "
            f"{', '.join(sorted(living))}. Stop all its processes first. A worker that was killed counts as running "
            "until its lease has ended, usually for a minute."
        )


def lock_tables(connection: Connection) -> None:
    """Let no other process change the tables until this transaction ends."""
    if connection.dialect.name == "sqlite":  # there the transaction itself is the lock
        return
    connection.execute(text(f"SET LOCAL lock_timeout = '{_WAIT_S}s'"))
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})


def revision_of(connection: Connection) -> str | None:
    """The revision of the tables, or None if there are none."""
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Apply the missing migrations up to a revision, within the connection's transaction.

    Raises: ConfigurationError if the tables, or the revision, are newer than this program.
    """
    # Alembic takes a tenth of a second to import, and only this module needs it.
    from alembic import command
    from alembic.util import CommandError

    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise _newer(str(error)) from error


def check_known(revision: str) -> None:
    """Raise ConfigurationError if the revision is newer than this program."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config())
    if revision not in {script.revision for script in scripts.walk_revisions()}:
        raise _newer(f"its revision is {revision}")


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _newer(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"A newer version of this program made the database ({why}). Use that version, or another database."
    )
