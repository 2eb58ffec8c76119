"""The registry in files: versions as folders, and aliases and reports as JSON for tests, benchmarks and one machine."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from app.registry.ports import AliasState, ProcessReport
from models.atomic import write_atomic
from models.references import is_version

FORGET_AFTER_S = 60.0
_PROCESS = re.compile(r"[A-Za-z0-9._-]{1,200}")


class FolderVersions:
    """Versions as `publish` leaves them: one folder each under one root, named by their hash."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, version: str) -> Path | None:
        """The version's folder, or None."""
        folder = self._root / version
        return folder if is_version(version) and folder.is_dir() else None


class FileAliases:
    """Aliases in one JSON file. A move replaces the file; there is one writer, and any number of readers."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Sequence[AliasState]:
        """All aliases; none while there is no file. Raises OSError or ValueError for one that cannot be read."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return [AliasState(**alias) for alias in content]

    def point(self, name: str, version: str) -> AliasState:
        """Move an alias to a version, or make it."""
        aliases = {alias.name: alias for alias in self.read()}
        old = aliases.get(name)
        new = AliasState(name, version, 1) if old is None else _moved(old, version)
        aliases[name] = new
        write_atomic(self._file, json.dumps([asdict(alias) for alias in aliases.values()]))
        return new

    def roll_back(self, name: str) -> AliasState:
        """Move an alias back to the version before. Raises ValueError where there is none."""
        previous = next((alias.previous for alias in self.read() if alias.name == name), None)
        if previous is None:
            raise ValueError(f"{name} has no previous version")
        return self.point(name, previous)


class FileReports:
    """Each process's report in a file of its own."""

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


def _moved(old: AliasState, version: str) -> AliasState:
    return AliasState(old.name, version, old.generation + 1, previous=old.version)
