"""The database of a system, for commands that read or write it without a service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sds_clip.app.settings import Settings
    from sds_clip.app.store import Store
    from sds_clip.app.store.database import Database

EMBEDDED = "sds-clip.db"
"""The file in the data folder that is the database of `sds-clip up`, if SDS_CLIP_DATABASE_URL names none."""


@contextmanager
def open_database(settings: Settings, *, is_new: bool = False) -> Iterator[Database]:
    """The database of a system, whose tables stay as they are, and to which the data folder belongs.

    With `is_new`, an SQLite file may be created, and the data folder is not looked at.

    Raises: ConfigurationError, WrongDataFolder, StoreUnavailable.
    """
    from sds_clip.app.errors import ConfigurationError
    from sds_clip.app.store.database import Database

    url = settings.database_url or embedded_database(settings.data_dir)
    with closing(Database(url, timeout_s=settings.store_timeout_s)) as database:
        if not is_new:
            if database.file is not None and not database.file.exists():
                raise ConfigurationError(
                    f"There is no database {database.file}. Check SDS_CLIP_DATABASE_URL and SDS_CLIP_DATA_DIR."
                )
            _check_data_folder(settings, database)
        yield database


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """The store of a system whose tables are those of this release.

    Raises: ConfigurationError, WrongDataFolder, StoreUnavailable.
    """
    from sds_clip.app.errors import ConfigurationError
    from sds_clip.app.store import Store
    from sds_clip.app.store.migrate import NEWEST, revision_of

    with open_database(settings) as database, database.reading() as connection:
        revision = revision_of(connection)
        if revision != NEWEST:
            raise ConfigurationError(
                f"The tables of the database have the revision {revision}, but this program needs {NEWEST}. "
                "Start the service or a worker of this release first; it migrates them."
            )
    url = settings.database_url or embedded_database(settings.data_dir)
    with closing(Store(url, timeout_s=settings.store_timeout_s)) as store:
        yield store


def _check_data_folder(settings: Settings, database: Database) -> None:
    """Check that the data folder is the database's. Tables of the release before have no id to compare."""
    from sds_clip.app.data_folder import DataFolder
    from sds_clip.app.store.migrate import NEWEST, revision_of

    with database.reading() as connection:
        revision = revision_of(connection)
    if revision == NEWEST:
        DataFolder(database, settings.data_dir).check(writes=False)


def embedded_database(data_dir: Path) -> str:
    """The URL of the database of `sds-clip up`, if SDS_CLIP_DATABASE_URL names none."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(data_dir.absolute() / EMBEDDED)).render_as_string()
