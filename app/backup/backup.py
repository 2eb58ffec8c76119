"""Writes a backup, while the service and its workers run.

The files that are named by a snapshot of the database are linked aside. If some of them were removed before they were
linked, a new snapshot no longer names them, and is taken instead.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import select

from sds_clip.app.backup.archive import FILES, ROWS, ArchiveWriter, Header
from sds_clip.app.backup.links import Links
from sds_clip.app.backup.named import TABLES, Named, What, WrongPath, named_by
from sds_clip.app.backup.scratch import BackupError, scratch_folder
from sds_clip.app.store.database import Database
from sds_clip.app.store.states import TERMINAL
from sds_clip.app.store.tables import jobs
from sds_clip.app.store.transfer import Row, WrongRows, read_rows, snapshot
from sds_clip.models.atomic import atomic_file

logger = logging.getLogger(__name__)

SCRATCH = "backing-up"
"""The folder in the data folder in which a backup is prepared."""

MAX_DEPTH = 100
"""How deeply lists and objects of a row may be nested. Pydantic writes some 250 levels."""


@dataclass(frozen=True)
class Holds:
    """What a backup holds."""

    rows: dict[str, int]
    """How many rows each table has."""
    size_bytes: int
    missing: list[dict[str, str]]
    """What rows name, but was missing when the backup was made: `what` and `id`."""


def write_backup(database: Database, data_dir: Path, out: BinaryIO) -> Holds:
    """Write all rows, and the files that they name, to `out`.

    Raises: BackupError, StoreUnavailable, ConfigurationError, OSError. What was written is then no
    backup, and an attempt to restore it says so.
    """
    with _scratch(data_dir) as scratch:
        return _write(database, data_dir, scratch, out)


def write_backup_file(database: Database, data_dir: Path, file: Path) -> Holds:
    """Write a backup beside the file, and rename it when it is complete. Raises what `write_backup` raises."""
    with _scratch(data_dir) as scratch:
        for left in file.parent.glob(f".{escape(file.name)}.????????"):  # by a backup that was killed
            left.unlink()
        with atomic_file(file, mode=0o600) as out:
            return _write(database, data_dir, scratch, out)


def _scratch(data_dir: Path) -> AbstractContextManager[Path]:
    if not data_dir.is_dir():
        raise BackupError(f"There is no data folder {data_dir}. Name it by --data-dir or SDS_CLIP_DATA_DIR.")
    return scratch_folder(data_dir / SCRATCH)


def _write(database: Database, data_dir: Path, scratch: Path, out: BinaryIO) -> Holds:
    links = scratch / "links"
    header, named, missing = _consistent(database, data_dir, scratch, links)
    archive = ArchiveWriter(out, header)
    archive.add_file(ROWS, scratch / ROWS)
    for folder in sorted({folder for each in named for folder in each.folders}):
        if (links / folder).exists():
            archive.add_tree(f"{FILES}/{folder}", links / folder)
    archive.finish(missing)
    return Holds(header.rows, archive.size_bytes, missing)


def _consistent(
    database: Database, data_dir: Path, scratch: Path, links: Path
) -> tuple[Header, set[Named], list[dict[str, str]]]:
    """Link files until every one that the rows name was linked, or is missing although two snapshots name it."""
    linking, before = Links(data_dir, links), set[Named]()
    while True:
        header = _write_rows(database, scratch)
        try:
            named = set(named_by(rows_in(scratch / ROWS)))
        except (WrongPath, WrongRows) as error:
            raise BackupError(f"{error} Correct the row in the database.") from error
        gone = {each for each in named if not linking.take(each)}
        gone |= _ended(database, named, linking.jobs_without_checkpoint)
        if gone <= before:
            return header, named, [{"what": each.what, "id": each.id} for each in sorted(gone, key=repr)]
        before = gone


def _write_rows(database: Database, scratch: Path) -> Header:
    counts = Counter[str]()
    with snapshot(database, scratch) as (revision, connection), (scratch / ROWS).open("wb") as file:
        created_at = time.time()
        for table, row in read_rows(connection):
            file.write(json.dumps({"table": table, "row": row}).encode() + b"\n")
            counts[table] += 1
    return Header(version("sds-clip"), revision, created_at, dict(counts))


def rows_in(file: Path) -> Iterator[Row]:
    """The rows that name files, or aliases, in a file of rows."""
    return (row for row in all_rows_in(file) if row[0] in TABLES)


def all_rows_in(file: Path) -> Iterator[Row]:
    """Yield the rows. Raises WrongRows for one that no answer of the API could hold."""
    with file.open("rb") as lines:
        for line in lines:
            content = json.loads(line)
            table, row = content["table"], content["row"]
            if _is_deeper(row, MAX_DEPTH):
                raise WrongRows(
                    f"The row {row.get('id')!r} of the table {table} is nested in more than {MAX_DEPTH} levels."
                )
            yield table, row


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested in more levels."""
    level = [value]
    for _ in range(depth + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return False
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
    return True


def _ended(database: Database, named: Iterable[Named], without_checkpoint: set[str]) -> set[Named]:
    """The jobs that have ended since the snapshot, and so may have removed the checkpoint that was missing."""
    open_jobs = {
        each.id: each
        for each in named
        if each.what is What.JOB and each.is_open and each.id in without_checkpoint
    }
    with database.reading() as connection:
        ended = connection.execute(select(jobs.c.id).where(jobs.c.status.in_(sorted(TERMINAL)))).scalars()
        return {open_jobs[job_id] for job_id in ended if job_id in open_jobs}
