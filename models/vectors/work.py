"""An unfinished run: what is to be embedded, and what is done of it, in one SQLite file in a folder.

Each part is one transaction of a write-ahead log, which is flushed to the disk from time to time. A killed process
loses no finished part, since the kernel has it. After a power cut, the log's checksums find what the disk did not get.
One connection has the file for itself, so that what decision 31 says about such logs does not apply. Records are JSON,
whose escapes keep names that are not UTF-8.
"""

import errno
import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from sds_clip.models.errors import VectorsError
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.vectors.about import About

_TABLES = (
    "run (manifest TEXT NOT NULL, entries INTEGER NOT NULL, is_last INTEGER NOT NULL)",
    "entries (number INTEGER PRIMARY KEY, record TEXT NOT NULL)",
    "errors (number INTEGER PRIMARY KEY, record TEXT NOT NULL)",
    "rows (number INTEGER PRIMARY KEY, record TEXT NOT NULL, embedding BLOB NOT NULL)",
)
_AT_ONCE = 1024
"""Entries that are read together, so that no query stays open while parts are added."""


@dataclass(frozen=True)
class Manifest:
    """What a run is. A folder is continued only by a run with the same manifest, apart from the entries."""

    about: About
    inputs: list[str]
    batch_size: int
    entries: int


@dataclass
class Part:
    """What is added together: rows, and why other entries have none."""

    entries: int
    embeddings: list[np.ndarray] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    is_last: bool = False
    """After it there is nothing to add."""


@dataclass(frozen=True)
class Done:
    """How far a run has come."""

    entries: int = 0
    rows: int = 0
    is_last: bool = False


class Work(AbstractContextManager["Work"]):
    """The folder, locked while it is open. Its methods raise OSError, and VectorsError if the file is damaged."""

    def __init__(self, folder: Path) -> None:
        """Raises VectorsError while another process uses the folder; OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.done = Done()
        self._file = folder / "run.sqlite3"
        with _translated(self._file):
            self._database = sqlite3.connect(self._file, timeout=0)
        try:
            with self._transaction():
                for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL"):
                    self._database.execute(f"PRAGMA {pragma}")
                self._database.execute("BEGIN EXCLUSIVE")
                for table in _TABLES:
                    self._database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        except BaseException:
            self._database.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(self._file), self._database:
            yield

    def _records(self, table: str, start: int = 0) -> Iterator[dict[str, Any]]:
        query = f"SELECT number, record FROM {table} WHERE number > ? ORDER BY number LIMIT {_AT_ONCE}"
        while found := self._all(query, start):
            start = found[-1][0]
            for _, record in found:
                yield json.loads(record)

    def _all(self, query: str, *values: int) -> list[Any]:
        with self._transaction():
            return self._database.execute(query, values).fetchall()

    def manifest(self) -> Manifest | None:
        """Return what the run is, or None if it was not begun."""
        for (text,) in self._all("SELECT manifest FROM run"):
            try:
                content: dict[str, Any] = json.loads(text)
                about = About.of_json(json.dumps(content.pop("about")), self._file)
                return Manifest(about, **content)
            except (ValueError, TypeError, KeyError) as error:
                raise _damaged(self._file) from error
        return None

    def begin(
        self, about: About, inputs: list[str], batch_size: int, entries: Iterable[ImageRef]
    ) -> Manifest:
        """Write down what is to be embedded. Raises what listing the entries raises, too."""
        with self._transaction():
            records = ((json.dumps(entry.as_json()),) for entry in entries)
            count = self._database.executemany("INSERT INTO entries (record) VALUES (?)", records).rowcount
            manifest = Manifest(about, inputs, batch_size, max(0, count))
            self._database.execute("INSERT INTO run VALUES (?, 0, 0)", (json.dumps(asdict(manifest)),))
        return manifest

    def is_listed(self, entries: Iterable[ImageRef]) -> bool:
        """Whether these are the entries that were written down."""
        listed = map(ImageRef.of_json, self._records("entries"))
        return all(one == other for one, other in zip_longest(listed, entries))

    def resume(self) -> None:
        """Find out how far the run has come."""
        ((entries, is_last),) = self._all("SELECT entries, is_last FROM run")
        ((rows,),) = self._all("SELECT count(*) FROM rows")
        self.done = Done(entries, rows, bool(is_last))

    def remaining(self) -> Iterator[ImageRef]:
        """Yield the entries that no part has."""
        yield from map(ImageRef.of_json, self._records("entries", self.done.entries))

    def finished_paths(self) -> Iterator[str]:
        """Yield the paths that have a row or an error."""
        for table in ("rows", "errors"):
            for record in self._records(table):
                yield record["path"]

    def add(self, part: Part) -> None:
        """Add a finished part."""
        done = Done(self.done.entries + part.entries, self.done.rows + len(part.rows), part.is_last)
        rows = zip(map(json.dumps, part.rows), (each.tobytes() for each in part.embeddings), strict=True)
        errors = ((json.dumps(each),) for each in part.errors)
        with self._transaction():
            self._database.executemany("INSERT INTO rows (record, embedding) VALUES (?, ?)", rows)
            self._database.executemany("INSERT INTO errors (record) VALUES (?)", errors)
            self._database.execute("UPDATE run SET entries = ?, is_last = ?", (done.entries, done.is_last))
        self.done = done

    def errors(self) -> Iterator[dict[str, str]]:
        """Yield why entries have no row: path, code and message."""
        return self._records("errors")

    def rows(self) -> Iterator[tuple[str, bytes]]:
        """Yield the finished rows: the record as JSON, and the embedding."""
        with _translated(self._file):
            yield from self._database.execute("SELECT record, embedding FROM rows ORDER BY number")

    def remove(self) -> None:
        """Remove the folder. The file goes first, so that what remains after a kill was not begun."""
        self._database.close()
        self._file.unlink()
        shutil.rmtree(self.folder)


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    """Raise VectorsError or OSError in place of SQLite's errors."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = error.sqlite_errorcode & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            raise VectorsError(
                f"Another process is working in {file.parent}. Wait until it has ended."
            ) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise _damaged(file) from error
        is_full = code == sqlite3.SQLITE_FULL
        raise OSError(errno.ENOSPC if is_full else errno.EIO, str(error), str(file)) from error


def _damaged(file: Path) -> VectorsError:
    return VectorsError(f"{file} is damaged; remove the folder {file.parent} to begin again.")
