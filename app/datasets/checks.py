"""What the check of a data set takes and gives. Each format has its checker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from app.errors import ServiceError
from models.errors import ModelError

LISTED = 20
"""How many problems are listed in words; all are counted."""
_MAX_MESSAGE_CHARS = 1000


@dataclass(frozen=True)
class Content:
    """Where a data set's files are: one folder, or shards in their order."""

    paths: tuple[Path, ...]
    is_folder: bool


@dataclass(frozen=True)
class Problem:
    """Why a data set, or an item of it, cannot be used."""

    code: str
    message: str


@dataclass(frozen=True)
class CheckResult:
    """What became of a data set: ready or rejected, and why. All of it goes into the record as it is."""

    ready: bool
    content_hash: str | None
    """SHA-256 of all that a model sees of it, the same wherever it lies; None where it is rejected."""
    counts: Mapping[str, int]
    problems: tuple[Problem, ...]
    """The first LISTED."""
    problem_count: int


Progress = Callable[[int, int], None]
"""Called as work goes on with (done, in all), the latter 0 where that is not known. What it raises ends the check."""


class Checker(Protocol):
    """Checks one format. `winoground` is in this package; `pairs` reads by models.data, which the service
    does not import, so the worker brings that one.
    """

    def __call__(self, content: Content, *, progress: Progress | None = None) -> CheckResult:
        """Look at every item, decode every image. What is wrong with the data is in the result, never raised."""


@dataclass
class Problems:
    """Problems as they are found, without the server's own paths."""

    hidden: Path | None = None
    """A folder whose path does not belong into messages: what is below it is named by its path from there."""
    count: int = 0
    listed: list[Problem] = field(default_factory=list)

    def add(self, code: str, message: str) -> None:
        """Count one more, and list it if it is among the first."""
        self.count += 1
        if len(self.listed) < LISTED:
            self.listed.append(Problem(code, self._shown(message)))

    def rejected(self, counts: Mapping[str, int] | None = None) -> CheckResult:
        """The result of a check that found these."""
        return CheckResult(False, None, counts or {}, tuple(self.listed), self.count)

    def _shown(self, message: str) -> str:
        if self.hidden is not None:
            message = message.replace(f"{self.hidden}/", "").replace(str(self.hidden), "the data set")
        return message if len(message) <= _MAX_MESSAGE_CHARS else message[:_MAX_MESSAGE_CHARS] + "..."


def rejected(error: ServiceError | ModelError, *, hidden: Path | None = None) -> CheckResult:
    """The result of a check that one error ended."""
    problems = Problems(hidden)
    problems.add(error.code, str(error))
    return problems.rejected()
