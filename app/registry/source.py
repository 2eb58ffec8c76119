"""The registry as a serving process sees it: where versions are, where aliases point, what other processes serve."""

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

# A process reports every few seconds: one that has not for this long has ended.
FORGET_AFTER_S = 60.0
_PROCESS = re.compile(r"[A-Za-z0-9._-]{1,200}")

WeightsLocation = Path | str
"""Where a version's weights are: a folder, or an operator's reference."""


@dataclass(frozen=True)
class ProcessReport:
    """What one serving process says of itself; `content` is JSON as GET /models/status shows it."""

    process: str
    at: float
    """Seconds since the epoch, UTC."""
    content: dict[str, Any]


class FileReports:
    """Each process's report in a file of its own, in a folder that all processes share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, report: ProcessReport) -> None:
        """Replace the process's report. Raises OSError; ValueError for a process that cannot be a file's name."""
        if not _PROCESS.fullmatch(report.process):
            raise ValueError(f"{report.process!r} cannot be a file's name")
        write_atomic(self._folder / f"{report.process}.json", json.dumps(asdict(report)))

    def read(self) -> Sequence[ProcessReport]:
        """The reports of the last minute."""
        reports = [
            ProcessReport(**json.loads(file.read_text(encoding="utf-8")))
            for file in sorted(self._folder.glob("*.json"))
        ]
        return [report for report in reports if report.at > time.time() - FORGET_AFTER_S]


@dataclass(frozen=True)
class Registry:
    """What a serving process asks of the registry.

    Each function is called in a thread of its own, so it may take its time; it answers or raises within seconds. An
    error means that the registry is away: the process goes on serving what it serves, and says so.
    """

    find_version: Callable[[str], WeightsLocation | None]
    """Where a published version's weights are; None for an unknown version."""
    read_aliases: Callable[[], Sequence[Alias]] | None = None
    """All aliases as they are now. Without it nothing is swapped."""
    reports: FileReports | None = None
    """Without them a process knows only itself."""
    mark_damaged: Callable[[str, bool], None] = lambda version, is_damaged: None
    """Records whether a published version was found to be damaged or whole; never raises."""


def find_folder(root: Path, version: str) -> Path | None:
    """A version's folder under one root, where `publish` leaves it; None where there is none."""
    folder = root / version
    return folder if is_version(version) and folder.is_dir() else None
