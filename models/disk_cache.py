"""A bounded cache on disk: values by key in one SQLite file that threads and processes share (decision 31).

Losing a row costs only the time to compute it again, so no failure reaches the caller. A damaged row counts
as absent and a damaged file is created anew. While the file cannot be used (a full disk, no write
permission), nothing is kept.

Each row carries a checksum of key and value, since SQLite has none. The journal is the rollback journal: the
write-ahead log can corrupt a file in versions before 3.51.3, and Python links whatever version the system
has. The next process to open the file rolls back what a killed writer began.
"""

import contextlib
import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TABLE = "CREATE TABLE IF NOT EXISTS cache (key BLOB PRIMARY KEY, used_at REAL NOT NULL, value BLOB NOT NULL)"
_INDEX = "CREATE INDEX IF NOT EXISTS used ON cache (used_at)"
_DIGEST_BYTES = 16
_KEYS_AT_ONCE = 500
"""Keys per query. SQLite before 3.32 takes at most 999 parameters."""
_PAGE_BYTES = 16_384
"""Most values are several kilobytes. With SQLite's default pages of 4,096 bytes, each would need a chain of pages."""
_REST_S = 60.0
"""How long to leave an unusable file alone, so that not every batch waits for it."""
_TOUCH_AFTER_S = 3600.0
"""How stale a row's time of last use may be. Without this, every read would also be a write."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""SQLITE_ERROR is what a file with other tables gives."""


class DiskCache:
    """Values by key. The least recently used rows are dropped beyond `max_bytes`; without it, none are.

    The file is opened on first use. A connection must not cross a fork.
    """

    def __init__(self, file: Path, *, max_bytes: int | None = None, wait_s: float = 10.0) -> None:
        """`wait_s` is how long to wait while another process writes."""
        self._file = file
        self._max_bytes = max_bytes
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._resting_until = float("-inf")
        self._is_told = False

    @property
    def folder(self) -> Path:
        return self._file.parent

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._disconnect()

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        return self._try(partial(_read, keys=list(keys))) or {}

    def put(self, key: bytes, value: bytes) -> None:
        self.put_many({key: value})

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store all values in one transaction."""
        self._try(partial(_write, values=values, max_bytes=self._max_bytes))

    def _try(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        with self._lock:
            if time.monotonic() < self._resting_until:
                return None
            for attempt in (1, 2):  # the second one after the file was replaced
                try:
                    return action(self._connected())
                except (sqlite3.Error, OSError) as error:
                    self._disconnect()
                    if attempt == 2 or not self._mend(error):
                        self._rest(error)
                        break
        return None

    def _connected(self) -> sqlite3.Connection:
        if self._database is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                self._file, timeout=self._wait_s, isolation_level=None, check_same_thread=False
            )
            _prepare(self._database)
        return self._database

    def _disconnect(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _mend(self, error: Exception) -> bool:
        """Return whether to reopen the file: it was replaced elsewhere, or is damaged and removed here."""
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_READONLY_DBMOVED:
            return True
        if code is None or code & 0xFF not in _DAMAGED:
            return False
        logger.warning("The cache %s is damaged and is created again: %s.", self._file, error)
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
            self._file.with_name(f"{self._file.name}-journal").unlink(missing_ok=True)
        return True

    def _rest(self, error: Exception) -> None:
        self._resting_until = time.monotonic() + _REST_S
        if not self._is_told:
            self._is_told = True
            logger.warning("The cache %s cannot be used, so nothing is kept in it: %s.", self._file, error)


def _prepare(database: sqlite3.Connection) -> None:
    database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # otherwise a lower bound would not shrink the file
    # Writes do not wait for the disk. The kernel has what a killed process wrote, and the checksums find what
    # a power cut spoils.
    database.execute("PRAGMA synchronous = OFF")
    database.execute(_TABLE)
    database.execute(_INDEX)


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _read(database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    now = time.time()
    found: dict[bytes, bytes] = {}
    stale: list[tuple[float, bytes]] = []
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        marks = ",".join("?" * len(some))
        rows = database.execute(f"SELECT key, used_at, value FROM cache WHERE key IN ({marks})", some)
        for key, used_at, stored in rows:
            if not isinstance(stored, bytes) or not isinstance(used_at, float):
                continue  # damaged: SQLite allows any type in any column
            value = stored[_DIGEST_BYTES:]
            if stored[:_DIGEST_BYTES] == _digest(key, value):
                found[key] = value
                if now - used_at > _TOUCH_AFTER_S:
                    stale.append((now, key))
    if stale:
        # A read-only file is still useful.
        with contextlib.suppress(sqlite3.OperationalError), _transaction(database):
            database.executemany("UPDATE cache SET used_at = ? WHERE key = ?", stale)
    return found


def _write(database: sqlite3.Connection, values: Mapping[bytes, bytes], max_bytes: int | None) -> None:
    now = time.time()
    rows = ((key, now, _digest(key, value) + value) for key, value in values.items())
    with _transaction(database):
        database.executemany("INSERT OR REPLACE INTO cache (key, used_at, value) VALUES (?, ?, ?)", rows)
        if max_bytes is not None:
            _drop_oldest(database, max_bytes)
    page, pages = _pragma(database, "page_size"), _pragma(database, "page_count")
    if max_bytes is not None and pages * page > max_bytes:
        # `execute` would take one step only, which frees one page; a script runs to the end.
        database.executescript(f"PRAGMA incremental_vacuum({pages - max_bytes // page})")


def _drop_oldest(database: sqlite3.Connection, max_bytes: int) -> None:
    """Drop the least recently used rows, and a tenth more than necessary so that not every write has to."""
    if _used_bytes(database) <= max_bytes:
        return
    while (excess := _used_bytes(database) - (max_bytes - max_bytes // 10)) > 0:
        # Half of the excess at a time, since a row's overhead depends on how rows fit into pages.
        rows = list(_oldest(database, excess // 2))
        if not rows:
            break
        database.executemany("DELETE FROM cache WHERE rowid = ?", rows)


def _used_bytes(database: sqlite3.Connection) -> int:
    pages = _pragma(database, "page_count") - _pragma(database, "freelist_count")
    return pages * _pragma(database, "page_size")


def _pragma(database: sqlite3.Connection, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


def _oldest(database: sqlite3.Connection, size_bytes: int) -> Iterator[tuple[int]]:
    """Yield the least recently used rows until their values total `size_bytes`; at least one."""
    for row, value_bytes in database.execute(
        "SELECT rowid, length(value) FROM cache ORDER BY used_at, rowid"
    ):
        yield (row,)
        size_bytes -= value_bytes
        if size_bytes <= 0:
            return


def _digest(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_DIGEST_BYTES, key=key[: hashlib.blake2b.MAX_KEY_SIZE]).digest()
