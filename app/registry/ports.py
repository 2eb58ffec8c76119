"""What a serving process needs from whoever keeps aliases, versions and reports. Plain, so that SQL or files fit.

Every method is called in a thread of its own, so it may take its time; it answers or raises within seconds.
Whatever it raises means that it is away: the process goes on serving what it serves, and says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class AliasState:
    """Where an alias points. The generation grows with every move, also with one back."""

    name: str
    version: str
    generation: int
    previous: str | None = None


class AliasSource(Protocol):
    """Where every serving process reads which versions its aliases stand for."""

    def read(self) -> Sequence[AliasState]:
        """All aliases as they are now."""


class VersionSource(Protocol):
    """Where a version's weights are."""

    def find(self, version: str) -> Path | str | None:
        """A published version's folder, or an operator's reference to a base; None for an unknown version."""


@dataclass(frozen=True)
class ProcessReport:
    """What one serving process says of itself; `content` is JSON as GET /models/status shows it."""

    process: str
    at: float
    """Seconds since the epoch, UTC."""
    content: dict[str, Any]


class ReportSink(Protocol):
    """Where serving processes leave their reports for one another."""

    def write(self, report: ProcessReport) -> None:
        """Keep a process's newest report; it replaces the one before."""

    def read(self) -> Sequence[ProcessReport]:
        """The newest report of every process, those that ended long ago left out."""


@dataclass(frozen=True)
class Registry:
    """The three together. `aliases` None: nothing is swapped; `reports` None: a process knows only itself."""

    versions: VersionSource
    aliases: AliasSource | None = None
    reports: ReportSink | None = None
    mark_damaged: Callable[[str, bool], None] = lambda version, is_damaged: None
    """Records whether a published version was found to be damaged or whole; never raises."""
