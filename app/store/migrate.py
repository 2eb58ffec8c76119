"""Brings the tables up to date when a process starts: one process at a time, all or nothing."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from app.errors import ConfigurationError
from app.store.database import Database
from app.store.values import lock_number

if TYPE_CHECKING:
    from alembic.config import Config

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "head"
_LOCK = lock_number("sds-clip", "migrate")
_WAIT_S = 60


def migrate(database: Database) -> None:
    """Apply the missing migrations in one transaction. Processes that start meanwhile wait, and find it done.

    Raises: StoreUnavailable; ConfigurationError if the tables are newer than this program.
    """
    with database.writing() as connection:
        lock_tables(connection)
        before = revision_of(connection)
        upgrade(connection)
        after = revision_of(connection)
    if before is None:
        logger.info("The database is new; its tables were created.")
    elif before != after:
        logger.info("The database was upgraded from revision %s to %s.", before, after)


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


def newest_revision() -> str | None:
    """The revision of this program's tables."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _newer(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"A newer version of this program made the database ({why}). Use that version, or another database."
    )
