"""Brings the tables up to date when a process starts: one process at a time, all or nothing."""

import logging
from pathlib import Path

from sqlalchemy import Connection, text

from app.errors import ConfigurationError
from app.store.database import Database
from app.store.values import lock_number

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = lock_number("sds-clip", "migrate")
_WAIT_S = 60


def migrate(database: Database) -> None:
    """Apply the missing migrations in one transaction. Processes that start meanwhile wait, and find it done.

    Raises: StoreUnavailable; ConfigurationError if the tables are newer than this program.
    """
    # Alembic takes a tenth of a second to import, and only this function needs it.
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with database.writing() as connection:
        if not database.is_sqlite:  # on SQLite the transaction itself is the lock
            _lock_postgresql(connection)
        config.attributes["connection"] = connection
        context = MigrationContext.configure(connection)
        before = context.get_current_revision()
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ConfigurationError(
                f"A newer version of this program made the database ({error}). Use that version, "
                "or another database."
            ) from error
        after = context.get_current_revision()
    if before is None:
        logger.info("The database is new; its tables were created.")
    elif before != after:
        logger.info("The database was upgraded from revision %s to %s.", before, after)


def _lock_postgresql(connection: Connection) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = '{_WAIT_S}s'"))
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
