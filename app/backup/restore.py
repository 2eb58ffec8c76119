"""Restores a backup into an empty database and a data folder without versions, data sets and jobs.

Everything is unpacked and checked in a folder of its own. Then the rows are written in one transaction, at the end of
which the files are moved to their places. A restore that was killed can therefore be repeated: either there are no
rows, or everything is there.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection

from sds_clip.app.backup.archive import ROWS, ArchiveReader, damaged
from sds_clip.app.backup.backup import Holds, all_rows_in, rows_in
from sds_clip.app.backup.named import FOLDERS, WrongPath, named_by
from sds_clip.app.backup.scratch import BackupError, scratch_folder
from sds_clip.app.store.database import Database
from sds_clip.app.store.migrate import check_known
from sds_clip.app.store.transfer import WrongRows, replace_tables, rows_in_the_way
from sds_clip.models.atomic import write_atomic

SCRATCH = "restoring"
"""The folder in the data folder in which a backup is unpacked."""
_PLACED = "placed.json"
"""In that folder: the database of an unfinished restore, and the files that it has put, or will have put, in place."""


def restore_backup(source: BinaryIO, database: Database, data_dir: Path) -> Holds:
    """Restore rows and files, and migrate them to this release.

    Raises: BackupError, StoreUnavailable, OSError; ConfigurationError for a backup of a newer release. Nothing is
    restored then.
    """
    with scratch_folder(data_dir / SCRATCH) as scratch:
        # Before files are removed: if the rows of a restore were committed, its files belong to them.
        with database.reading() as connection:
            _check_no_rows(connection)
        _remove_placed(data_dir, database)
        _check_no_files(data_dir)
        archive = ArchiveReader(source)
        check_known(archive.header.revision)
        rows, files = scratch / ROWS, scratch / "files"
        archive.unpack_rows(rows)
        try:
            folders = {folder for named in named_by(rows_in(rows)) for folder in named.folders}
        except (WrongPath, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise damaged(f"its rows are wrong ({error})") from error
        missing = archive.unpack_files(files, folders)
        size_bytes = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
        try:
            with database.writing() as connection:
                _check_no_rows(connection)
                replace_tables(connection, archive.header.revision, all_rows_in(rows))
                # Before the commit, so that no row names a missing file. The next restore removes files without rows.
                _place(files, data_dir, folders, database)
        except (WrongRows, RecursionError) as error:
            raise damaged(f"its rows are wrong ({error})") from error
        # After the commit: until then, a repeated restore knows by this note which files it may remove.
        (data_dir / SCRATCH / _PLACED).unlink()
        return Holds(archive.header.rows, size_bytes, missing)


def _check_no_rows(connection: Connection) -> None:
    if counts := rows_in_the_way(connection):
        found = ", ".join(f"{table} ({count})" for table, count in counts.items())
        raise BackupError(
            f"The database is not empty: there are rows in {found}. A backup is only restored into an empty database. "
            "Name a new one, or move the old one away."
        )


def _check_no_files(data_dir: Path) -> None:
    for folder in FOLDERS:
        path = data_dir / folder
        if path.is_dir() and (found := next(path.iterdir(), None)) is not None:
            raise BackupError(
                f"{found} is in the way. A backup is only restored into a data folder without versions, data sets and "
                f"jobs. Name another folder by --data-dir, or move {path} away."
            )


def _place(files: Path, data_dir: Path, folders: set[str], database: Database) -> None:
    """Move the folders to their places, and sync them to disk. They are noted first, for a repeated restore."""
    present = sorted(folder for folder in folders if (files / folder).exists())
    write_atomic(data_dir / SCRATCH / _PLACED, json.dumps({"database": database.name, "folders": present}))
    for folder in present:
        target = data_dir / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(files / folder, target)  # a copy, if versions or data sets have a disk of their own
    # Before the rows are committed: after a power cut they must find their files.
    # One sync for all files: syncing each takes milliseconds, and there may be half a million.
    os.sync()


def _remove_placed(data_dir: Path, database: Database) -> None:
    """Remove the files of a restore that ended before its rows were written to this database, which has none."""
    note = data_dir / SCRATCH / _PLACED
    with contextlib.suppress(FileNotFoundError):
        placed = json.loads(note.read_text(encoding="utf-8"))
        if placed["database"] == database.name:  # otherwise its rows may be in another one
            for folder in placed["folders"]:
                shutil.rmtree(data_dir / folder, ignore_errors=True)
            # Last: if this is killed before, the next restore removes the rest.
            note.unlink()
