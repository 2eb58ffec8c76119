"""The registry as a serving process sees it: locations of versions, aliases, reports of other processes."""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.store.records import Alias
from models.atomic import write_atomic
from models.references import is_version

# A process reports every few seconds. One that has not reported for this long has ended.
FORGET_AFTER_S = 60.0
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
    """The reports of all processes, each in a file of its own in a shared folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, report: ProcessReport) -> None:
        """Replace the process's report.

        Raises OSError, and ValueError for a process whose name cannot be a file name.
        """
        if not _PROCESS.fullmatch(report.process):
            raise ValueError(f"{report.process!r} cannot be a file's name")
        write_atomic(self._folder / f"{report.process}.json", json.dumps(asdict(report)), durable=False)

    def read(self) -> Sequence[ProcessReport]:
        """The reports of the last minute."""
        reports = [
            ProcessReport(**json.loads(file.read_text(encoding="utf-8")))
            for file in sorted(self._folder.glob("*.json"))
        ]
        return [report for report in reports if report.at > time.time() - FORGET_AFTER_S]


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
    """Returns all current aliases. Without this function nothing is swapped."""
    reports: FileReports | None = None
    """Without these, a process knows only itself."""
    mark_damaged: Callable[[str, bool], None] = lambda version, is_damaged: None
    """Records whether a published version was found to be damaged or intact. It never raises."""
    is_seen: Callable[[str, str], bool] = lambda version, owner: True
    """Returns whether an owner sees a version. Without a database, nothing has an owner, and everyone sees all."""


def find_folder(root: Path, version: str) -> Path | None:
    """A version's folder under `root`, where `publish` puts it, or None if there is none."""
    folder = root / version
    return folder if is_version(version) and folder.is_dir() else None
