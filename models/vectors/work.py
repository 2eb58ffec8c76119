"""An unfinished run's folder: what is to be embedded, and what is done of it.

    manifest.json     what the run is; written last, so that a folder without it was not begun
    entries.jsonl     the images, in their order
    embeddings        finished rows: numbers
    rows.jsonl        finished rows: path and sha256
    errors.jsonl      the images that could not be embedded
    log.jsonl         a line for each finished part: where it ends in these files, and a checksum of what it added

The kernel keeps what a killed process has written. A part counts if all that its line promises is there: after a
power cut, the checksums find what the disk did not get. Whatever follows the last whole part is cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from sds_clip.models.atomic import write_atomic
from sds_clip.models.errors import VectorsError
from sds_clip.models.vectors.about import About
from sds_clip.models.vectors.entries import Entry

_FILES = ("embeddings", "rows.jsonl", "errors.jsonl")
_LOG = "log.jsonl"
_SYNC_EVERY_S = 5.0


@dataclass(frozen=True)
class Manifest:
    """What a run is. A folder is continued only by a run with the same manifest, apart from the entries."""

    about: About
    inputs: list[str]
    batch_size: int
    entries: int
    entries_sha256: str


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
    """How far a run has come: a line of the log."""

    entries: int = 0
    rows: int = 0
    errors: int = 0
    sizes: tuple[int, ...] = (0, 0, 0)
    is_last: bool = False
    crc32: int = 0


class Work:
    """The folder, locked while it is open."""

    def __init__(self, folder: Path) -> None:
        """Raises VectorsError while another process uses the folder; OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.done = Done()
        self._lock = FileLock(folder / "lock", fallback_to_soft=False)
        self._files = ExitStack()
        self._synced_at = time.monotonic()
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise VectorsError(f"Another process is working in {folder}. Wait until it has ended.") from error

    def __enter__(self) -> Work:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
        self._lock.release()

    def manifest(self) -> Manifest | None:
        """Return what the run is, or None if it was not begun. Raises VectorsError."""
        file = self.folder / "manifest.json"
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            about = About.of_json(json.dumps(content.pop("about")), file)
            return Manifest(about, **content)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise VectorsError(
                f"{file} is damaged; remove the folder {self.folder} to begin again."
            ) from error

    def begin(self, about: About, inputs: list[str], batch_size: int, entries: Iterable[Entry]) -> Manifest:
        """Write down what is to be embedded. Raises OSError, and what listing the entries raises."""
        for name in (*_FILES, _LOG):
            (self.folder / name).unlink(missing_ok=True)
        count, digest = self._write_entries("entries.jsonl", entries)
        manifest = Manifest(about, inputs, batch_size, count, digest)
        write_atomic(self.folder / "manifest.json", json.dumps(asdict(manifest), indent=1))
        return manifest

    def is_listed(self, entries: Iterable[Entry], manifest: Manifest) -> bool:
        """Whether these are the entries that were written down."""
        _, digest = self._write_entries("entries.new", entries)
        (self.folder / "entries.new").unlink()
        return digest == manifest.entries_sha256

    def _write_entries(self, name: str, entries: Iterable[Entry]) -> tuple[int, str]:
        digest, count = hashlib.sha256(), 0
        with (self.folder / name).open("wb") as file:
            for entry in entries:
                given = {key: value for key, value in asdict(entry).items() if value is not None}
                line = (json.dumps(given) + "\n").encode()
                file.write(line)
                digest.update(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        return count, digest.hexdigest()

    def resume(self) -> None:
        """Find the last whole part, and cut off what follows it. Raises OSError."""
        paths = [self.folder / name for name in (*_FILES, _LOG)]
        for path in paths:
            path.touch()
        log_bytes = 0
        with ExitStack() as stack:
            *files, log = [stack.enter_context(path.open("rb")) for path in paths]
            for line in log:
                done = _parsed(line)
                if done is None or done.crc32 != _crc32_of(files, self.done, done):
                    break
                self.done = done
                log_bytes += len(line)
        for path, size in zip(paths, (*self.done.sizes, log_bytes), strict=True):
            os.truncate(path, size)
        self._appended = [self._files.enter_context(path.open("ab")) for path in paths]

    def remaining(self) -> Iterator[Entry]:
        """Yield the entries that no part has."""
        with (self.folder / "entries.jsonl").open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                if number >= self.done.entries:
                    yield Entry(**json.loads(line))

    def finished_paths(self) -> Iterator[str]:
        """Yield the paths that have a row or an error."""
        for name in ("rows.jsonl", "errors.jsonl"):
            with (self.folder / name).open(encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)["path"]

    def add(self, part: Part) -> None:
        """Append a finished part. When this returns, killing the process loses nothing of it. Raises OSError."""
        added = [
            b"".join(row.tobytes() for row in part.embeddings),
            _json_lines(part.rows),
            _json_lines(part.errors),
        ]
        crc32 = 0
        for data in added:
            crc32 = zlib.crc32(data, crc32)
        before = self.done
        self.done = Done(
            entries=before.entries + part.entries,
            rows=before.rows + len(part.rows),
            errors=before.errors + len(part.errors),
            sizes=tuple(size + len(data) for size, data in zip(before.sizes, added, strict=True)),
            is_last=part.is_last,
            crc32=crc32,
        )
        for file, data in zip(self._appended, [*added, _json_lines([asdict(self.done)])], strict=True):
            file.write(data)
            file.flush()
        if time.monotonic() - self._synced_at > _SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Flush what was added to the disk, for the case of a power cut."""
        for file in self._appended:
            os.fsync(file.fileno())
        self._synced_at = time.monotonic()

    def embeddings(self, about: About) -> np.ndarray:
        """Map the finished rows into memory."""
        shape = (self.done.rows, about.dimensions)
        if not self.done.rows:
            return np.empty(shape, about.dtype)
        return np.memmap(self.folder / "embeddings", about.dtype, "r", shape=shape)

    def remove(self) -> None:
        """Remove the folder; the manifest goes first, so that what remains after a kill was not begun."""
        (self.folder / "manifest.json").unlink()
        shutil.rmtree(self.folder)


def _json_lines(records: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _parsed(line: bytes) -> Done | None:
    try:
        content = json.loads(line)
        return Done(**{**content, "sizes": tuple(content["sizes"])}) if line.endswith(b"\n") else None
    except (ValueError, TypeError, KeyError):
        return None


def _crc32_of(files: Iterable[Any], before: Done, after: Done) -> int:
    """Return the checksum of what a part added. What is missing in a file makes it another one."""
    crc32 = 0
    for file, start, end in zip(files, before.sizes, after.sizes, strict=True):
        file.seek(start)
        crc32 = zlib.crc32(file.read(max(0, end - start)), crc32)
    return crc32
