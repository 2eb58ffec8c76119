"""Aliases in one JSON file, as the registry of a server that is tested without a database."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sds_clip.app.store.records import Alias


class FileAliases:
    """One writer, any number of readers. A move replaces the file atomically."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Sequence[Alias]:
        """All aliases; none if there is no file. Raises OSError or ValueError if it cannot be read."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return [Alias(**alias) for alias in content]

    def point(self, name: str, version: str) -> Alias:
        """Create an alias or move it to a version."""
        aliases = {alias.name: alias for alias in self.read()}
        old = aliases.get(name)
        new = (
            Alias(name, version, 1)
            if old is None
            else Alias(name, version, old.generation + 1, previous=old.version)
        )
        self._write({**aliases, name: new})
        return new

    def remove(self, name: str) -> None:
        """Remove an alias."""
        aliases = {alias.name: alias for alias in self.read()}
        old = aliases[name]
        gone = replace(old, generation=old.generation + 1, previous=None, removed_at=time.time())
        self._write({**aliases, name: gone})

    def _write(self, aliases: Mapping[str, Alias]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps([asdict(alias) for alias in aliases.values()]), encoding="utf-8")
        written.replace(self._file)

    def roll_back(self, name: str) -> Alias:
        """Move an alias back to its previous version. Raises ValueError if there is none."""
        previous = next((alias.previous for alias in self.read() if alias.name == name), None)
        if previous is None:
            raise ValueError(f"{name} has no previous version")
        return self.point(name, previous)
