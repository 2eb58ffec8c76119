"""The connection: short transactions on SQLite or PostgreSQL, and one error when the database is away."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Engine, create_engine, event, exc, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL

from sds_clip.app.errors import ConfigurationError, StoreUnavailable
from sds_clip.app.store.clock import DatabaseClock
from sds_clip.app.store.values import dumps, lock_number

logger = logging.getLogger(__name__)

_AWAY = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)
_NO_CONNECTION = ("too many clients", "remaining connection slots", "too many connections")


class Database:
    """The database at a URL, shared by the threads of one process. A forked child opens its own.

    The URL is `sqlite:////absolute/path.db` or `postgresql://user:password@host/name`. Nothing connects
    before the first transaction. An operation waits at most about `timeout_s` for a lock, a connection or a
    statement. Transactions keep `clock` right.

    Raises: ConfigurationError for any other URL.
    """

    def __init__(self, url: str, *, timeout_s: float, clock: DatabaseClock | None = None) -> None:
        self._engine = _engine(_parsed(url), timeout_s)
        # While connecting, SQLAlchemy passes on the driver's own error unwrapped.
        self._away = (*_AWAY, self._engine.dialect.loaded_dbapi.DatabaseError)
        self.is_sqlite = self._engine.dialect.name == "sqlite"
        self.file = Path(self._engine.url.database or "") if self.is_sqlite else None
        """The file of an SQLite database."""
        self.name = self._engine.url.set(username=None, password=None).render_as_string()
        """The URL without user and password."""
        # On SQLite a writer takes its lock at the start. A transaction that reads first could not get the
        # lock later without the risk of a deadlock.
        self._writer = self._engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
        self._clock = clock
        self._closed = False

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that changes nothing. Raises StoreUnavailable."""
        return self._transaction(self._engine)

    def reading_one_moment(self) -> AbstractContextManager[Connection]:
        """As `reading`, and on PostgreSQL all statements see the same moment. Raises StoreUnavailable."""
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return self._transaction(self._engine.execution_options(**options))

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that commits at the end of the block, or rolls back if the block raises.

        Raises: StoreUnavailable, after which a commit that was under way may still have happened.
        """
        return self._transaction(self._writer)

    def close(self) -> None:
        """Close every connection. One that a thread is using is closed when its transaction ends."""
        self._closed = True
        self._engine.pool.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                if self._clock is not None:
                    self._clock.look(connection)
                yield connection
        except self._away as error:
            if _is_mistake(error):
                raise
            raise _unavailable(error) from error
        except exc.DBAPIError as error:
            # SQLite raises the bare class for a file that is damaged or not a database.
            if error.connection_invalidated or type(error) is exc.DatabaseError:
                raise _unavailable(error) from error
            raise
        finally:
            if self._closed:
                self._engine.pool.dispose()


def add_up(connection: Connection, column: Column[Any], amount: float, **key: object) -> None:
    """Add to a number of the row with this primary key. A row that is not there begins at 0."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    new = dialect.insert(column.table).values({**key, column.name: amount})
    connection.execute(
        new.on_conflict_do_update(index_elements=list(key), set_={column.name: column + amount})
    )


def hold_name(connection: Connection, *parts: str) -> None:
    """Let no other transaction hold this name until this one ends. SQLite has one that writes at a time anyway."""
    if connection.dialect.name != "sqlite":
        connection.execute(select(func.pg_advisory_xact_lock(lock_number(*parts))))


def _is_mistake(error: Exception) -> bool:
    """Whether the statement is wrong. SQLite uses one class for that, for a lock and for a full disk."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_ERROR


def _unavailable(error: Exception) -> StoreUnavailable:
    cause = getattr(error, "orig", None) or error
    # The server's refusal has no code that libpq passes on.
    if any(words in str(cause) for words in _NO_CONNECTION):
        logger.error(
            "PostgreSQL has no connection left. Raise max_connections there, or run fewer services and workers: %s",
            cause,
        )
        return StoreUnavailable("The database has no connection left; try again later.")
    logger.warning("The database does not respond: %s", cause)
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StoreUnavailable("The disk of the database is full. Free some space, then try again.")
    return StoreUnavailable()


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except exc.ArgumentError:
        raise ConfigurationError(
            "The URL of the database is not valid; write it as sqlite:////PATH or "
            "postgresql://USER:PASSWORD@HOST/NAME."
        ) from None
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed.set(drivername="sqlite+pysqlite")
    raise ConfigurationError(
        f"{parsed.render_as_string(hide_password=True)} is neither a PostgreSQL database nor an SQLite file; "
        "write sqlite:////PATH or postgresql://USER:PASSWORD@HOST/NAME."
    )


def _engine(url: URL, timeout_s: float) -> Engine:
    create = partial(
        create_engine,
        pool_size=10,
        max_overflow=10,
        pool_timeout=timeout_s,
        hide_parameters=True,  # errors are logged, but requests may be private
        json_serializer=dumps,
    )
    if url.get_backend_name() == "sqlite":
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
        engine = create(url, connect_args={"timeout": timeout_s})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # Claims and fences rely on READ COMMITTED: a locked row is read in its current state.
    return create(
        url,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        connect_args=_postgresql_arguments(timeout_s),
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Use a rollback journal, because WAL can corrupt itself in older versions of SQLite.

    With TRUNCATE, `synchronous=FULL` also syncs the end of the journal (docs/decisions/0014-the-store.md).
    """
    connection.isolation_level = None  # the driver starts no transactions of its own
    for pragma in ("journal_mode=TRUNCATE", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))


def _postgresql_arguments(timeout_s: float) -> dict[str, Any]:
    timeout_ms = round(timeout_s * 1000)
    # A stalled process may hold its locks so long. A busy machine stalls one for a second or more.
    idle_ms = max(3 * timeout_ms, 10_000)
    return {
        "connect_timeout": max(2, round(timeout_s)),
        "tcp_user_timeout": timeout_ms,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "application_name": "sds-clip",
        "options": (
            f"-c statement_timeout={timeout_ms} -c lock_timeout={timeout_ms} "
            f"-c idle_in_transaction_session_timeout={idle_ms} -c timezone=UTC"
        ),
    }
