"""The registry as a serving process sees it: locations of versions, aliases, reports of other processes."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from sds_clip.app.store.clock import Clock
from sds_clip.app.store.records import Alias
from sds_clip.models.atomic import write_atomic
from sds_clip.models.checkpoints.references import is_version

REPORTS = "serving"
"""The folder of reports in the data folder."""
# A process reports every few seconds. One that has not reported for this long is not listed any more.
FORGET_AFTER_S = 60.0
# A process of another host that has not reported for this long, and holds no lock, has ended.
MISS_AFTER_S = 15.0
_PROCESS = re.compile(r"[A-Za-z0-9._-]{1,200}")

WeightsLocation = Path | str
"""Where a version's weights are: a folder, or an operator's reference."""


@dataclass(frozen=True)
class ProcessReport:
    """A serving process's report about itself. `content` is JSON as in GET /models/status."""

    process: str
    at: float
    """Seconds since the epoch, UTC."""
    content: dict[str, Any]


class FileReports:
    """The reports of all processes, each in a file of its own in a shared folder.

    A process holds the lock beside its report as long as it lives. The operating system releases the lock of a process
    that is killed.
    """

    def __init__(self, folder: Path, now: Clock = time.time) -> None:
        self._folder = folder
        self.now = now
        """The time that all processes share."""

    def enter(self, process: str) -> BaseFileLock:
        """The lock that says that a process lives, which the caller holds.

        Raises OSError, and ValueError for a process whose name cannot be a file name.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(self._file(process, "lock"))
        lock.acquire(blocking=False)
        return lock

    def write(self, report: ProcessReport) -> None:
        """Replace the process's report. Raises OSError, and ValueError as `enter` does."""
        write_atomic(self._file(report.process, "json"), json.dumps(asdict(report)), durable=False)

    def remove(self, process: str) -> None:
        """Remove what a process that has ended has left."""
        for suffix in ("json", "lock"):
            self._file(process, suffix).unlink(missing_ok=True)

    def read(self) -> Sequence[ProcessReport]:
        """The reports of the last minute, without those of processes that have ended. Raises OSError."""
        found = []
        for file in sorted(self._folder.iterdir()):
            # It may have been removed just now, or be incomplete because its machine has crashed.
            with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
                if file.suffix == ".json":
                    found.append(ProcessReport(**json.loads(file.read_text(encoding="utf-8"))))
        recent = [report for report in found if report.at > self.now() - FORGET_AFTER_S]
        return [report for report in recent if self._is_alive(report)]

    def _is_alive(self, report: ProcessReport) -> bool:
        holds = self._holds_lock(report.process)
        is_here = report.content.get("host") == socket.gethostname()
        # Some network file systems have no locks, and some do not show those of other hosts.
        if holds is None or not (holds or is_here):
            return report.at > self.now() - MISS_AFTER_S
        if not holds:
            self.remove(report.process)
        return holds

    def _holds_lock(self, process: str) -> bool | None:
        """Whether the process holds its lock. None if it has none."""
        file = self._file(process, "lock")
        try:
            if not file.exists():
                return None
            with _lock(file).acquire(blocking=False):
                return False
        except Timeout:
            return True
        except (OSError, NotImplementedError):
            return None

    def _file(self, process: str, suffix: str) -> Path:
        if not _PROCESS.fullmatch(process):
            raise ValueError(f"{process!r} cannot be a file's name")
        return self._folder / f"{process}.{suffix}"


def _lock(file: Path) -> BaseFileLock:
    # The process holds it, whichever thread has acquired it.
    return FileLock(file, thread_local=False, fallback_to_soft=False)


@dataclass(frozen=True)
class Registry:
    """The functions through which a serving process reads the registry.

    Each function is called in a thread of its own, so it may block, but it answers or raises within seconds.
    An error means that the registry is unavailable: the process continues to serve what it serves, and
    reports the error.
    """

    find_version: Callable[[str], WeightsLocation | None]
    """Returns where a published version's weights are, or None for an unknown version."""
    read_aliases: Callable[[], Sequence[Alias]] | None = None
    """Returns all aliases, and those that were removed. Without this function nothing is swapped."""
    reports: FileReports | None = None
    """Without these, a process knows only itself."""
    mark_damaged: Callable[[str, bool], None] = lambda version, is_damaged: None
    """Records whether a published version was found to be damaged or intact. It never raises."""
    seen: Callable[[Collection[str], str | None], frozenset[str]] | None = None
    """Returns those of the versions that are published and that an owner sees. None, as an owner, sees all.

    Without a database, nothing has an owner, and everyone sees what `find_version` finds.
    """

    begun: Callable[[str, str | None], Sequence[str]] = lambda prefix, owner: ()
    """Returns the first ids that begin with a prefix, of versions that an owner sees. None, as an owner, sees all."""

    def seen_among(self, versions: Collection[str], owner: str | None) -> frozenset[str]:
        """Those of the versions that are published and that an owner sees. None, as an owner, sees all."""
        if self.seen is not None:
            return self.seen(versions, owner)
        return frozenset(version for version in versions if self.find_version(version) is not None)


def find_folder(root: Path, version: str) -> Path | None:
    """A version's folder under `root`, where `publish` puts it, or None if there is none."""
    folder = root / version
    return folder if is_version(version) and folder.is_dir() else None


def folders_begun(root: Path, prefix: str) -> list[str]:
    """The versions under `root` whose ids begin with these digits."""
    return [folder.name for folder in root.glob(f"{prefix}*") if find_folder(root, folder.name) is not None]
