"""Whether the data folder is the one that belongs to the database: both have the same random id.

A process that sees another folder, such as the empty one below a file system that is not mounted, would fail every job
for its missing files, and remove records whose files are elsewhere.
"""

import logging
import secrets
import threading
import time
from pathlib import Path

from sqlalchemy import Connection, insert, select

from sds_clip.app.errors import ConfigurationError, without_folder
from sds_clip.app.store.database import Database
from sds_clip.app.store.migrate import lock_tables
from sds_clip.app.store.records import SOURCE_PATH, DatasetStatus, VersionStatus
from sds_clip.app.store.tables import data_folder, datasets, versions
from sds_clip.models.atomic import write_atomic

logger = logging.getLogger(__name__)

ID_FILE = "data-folder-id"
SLOW_S = 30.0
_ID = select(data_folder.c.id)


class WrongDataFolder(ConfigurationError):
    """The data folder is not the one that belongs to the database, or cannot be read."""


class DataFolder:
    """The data folder at a path, as this process sees it."""

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self._path = path.absolute()
        self._file = self._path / ID_FILE
        self._id: str | None = None
        self._looking = threading.Lock()
        self._asked_at: float | None = None
        self._error: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether it is the database's, as of the last `look`."""
        return self._error is None

    @property
    def trouble(self) -> str | None:
        """Why the folder cannot be used, for callers, who do not learn its path. None if it can.

        A `look` may take long: the folder of a file server that is away may not answer at all.
        """
        error, asked_at = self._error, self._asked_at
        if error is None and asked_at is not None and time.monotonic() - asked_at > SLOW_S:
            error = f"{self._path} has not answered for {SLOW_S:g} s."
        if error is None:
            return None
        hidden = without_folder(error, self._path)
        return hidden[0].upper() + hidden[1:]

    def look(self) -> bool:
        """Compare again, and log what has changed. Returns `is_right`. It may hang. Raises StoreUnavailable."""
        with self._looking:
            self._asked_at, was_right = time.monotonic(), self.is_right
            try:
                self.check()
                self._error = None
            except WrongDataFolder as error:
                self._error = str(error)
            finally:
                self._asked_at = None
            if was_right and self._error is not None:
                logger.error("%s", self._error)
            elif self.is_right and not was_right:
                logger.info("%s is the data folder of the database again.", self._path)
            return self.is_right

    def check(self, *, writes: bool = True) -> None:
        """Compare the ids. With `writes`, whichever is missing is written, if the folder is known to be the right one.

        That is so if there is no id yet and the database names no files, or if files that it names are there: the
        release before wrote no ids, and a folder may have been copied or restored without it.

        Raises: WrongDataFolder, StoreUnavailable.
        """
        try:
            found = self._read()
            if self._id is None:
                with self._database.reading() as connection:
                    self._id = connection.execute(_ID).scalar_one_or_none()
            if found is None or found != self._id:
                found = self._agreed(writes)
        except OSError as error:
            raise WrongDataFolder(
                f"{self._path} cannot be used as data folder ({error.strerror or error}). Mount it, or correct "
                "SDS_CLIP_DATA_DIR."
            ) from error
        if found != self._id:
            has = "has no id" if found is None else f"has the id {found}"
            raise WrongDataFolder(
                f"{self._path} is not the data folder of the database: it {has}, and the database has {self._id}. "
                "Mount the right folder, or correct SDS_CLIP_DATA_DIR or SDS_CLIP_DATABASE_URL. If it is the right "
                f"one all the same, put the database's id into its file {ID_FILE}."
            )

    def _read(self) -> str | None:
        try:
            return self._file.read_text(encoding="utf-8", errors="replace").strip() or None
        except FileNotFoundError:
            return None

    def _agreed(self, writes: bool) -> str | None:
        """The folder's id, or what it would be if a missing one was written. Raises StoreUnavailable, OSError."""
        with self._database.writing() if writes else self._database.reading() as connection:
            if writes:
                lock_tables(connection)
            found = self._read()  # again, since another process may have written it
            self._id = connection.execute(_ID).scalar_one_or_none()
            is_new = self._id is None
            if self._id is None:
                self._id = found or secrets.token_hex(16)
                if writes:
                    connection.execute(insert(data_folder).values(id=self._id))
            if found is None and self._is_known(connection, is_new):
                if writes:  # before the commit, after which a missing file is a difference
                    write_atomic(self._file, f"{self._id}\n")
                found = self._id
        return found

    def _is_known(self, connection: Connection, is_new: bool) -> bool:
        """Whether a folder without an id is the right one, by the files that the database names."""
        named = _named(connection)
        return any((self._path / folder).exists() for folder in named) if named else is_new


def _named(connection: Connection) -> list[str]:
    """The folders of versions and data sets that must be in the data folder."""
    of_versions = select(versions.c.folder).where(
        versions.c.status == VersionStatus.READY, versions.c.folder.is_not(None)
    )
    of_datasets = select(datasets.c.id).where(
        datasets.c.status == DatasetStatus.READY, datasets.c.source[SOURCE_PATH].as_string().is_(None)
    )
    uploaded = connection.execute(of_datasets).scalars()
    return [*connection.execute(of_versions).scalars(), *(f"datasets/sets/{each}" for each in uploaded)]
