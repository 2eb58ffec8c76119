"""What a serving process keeps on a disk of its own, so that it can start while the registry is away or damaged.

    aliases.json         the aliases as they were read last, and where the weights that they point at were
    versions/VERSION/    a copy of a published version, verified when it was made and again before it is used
    lock                 held as long as the process lives: two processes never share a state

An alias is recorded before its version is served, and the version is copied before it is served. So a process that is
killed at any moment finds here what it answered with, or a newer alias, and never an older one.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from app.errors import ConfigurationError
from app.registry.manifest import DamagedVersion, verify
from app.registry.ports import AliasState
from models.atomic import atomic_folder, write_atomic
from models.delta_file import DeltaError, is_delta, read_description
from models.references import CheckpointError

logger = logging.getLogger(__name__)

FORMAT = 1
RECORD_EVERY_S = 30.0
"""How often aliases that did not move are recorded again: how exact `read_at` is."""

Place = Path | str
"""Where a version's weights are: a folder, or an operator's reference."""


@dataclass(frozen=True)
class Remembered:
    """The last reading of the registry."""

    aliases: Sequence[AliasState]
    places: Mapping[str, Place]
    """Of the versions that aliases point at, and of those that they lie over."""
    read_at: float
    """Seconds since the epoch."""


class RegistryBehind(Exception):
    """The registry knows less than this process has read from it before."""


class LocalState:
    """The state of one process, in a folder that it locks.

    Raises: ConfigurationError where the folder cannot be written, or another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._copies = folder / "versions"
        self._file = folder / "aliases.json"
        self.close = weakref.finalize(self, os.close, _lock(folder))
        """Lets another process have it."""
        self._changing = threading.Lock()
        self._found: dict[str, Place] = {}
        self._unwritten: str | None = None
        self._uncopied: dict[str, str] = {}
        self.remembered: Remembered | None = _read(self._file)
        """None where the registry was never read."""

    @property
    def error(self) -> str | None:
        """Why a part of it could not be written; that is tried again."""
        return self._unwritten or next(iter(self._uncopied.values()), None)

    def record(self, aliases: Sequence[AliasState]) -> None:
        """Remember what was read. Where it cannot be written, no older state is left, and `error` says why."""
        with self._changing:
            old = self.remembered
            is_news = old is None or list(old.aliases) != list(aliases)
            if not is_news and old is not None and time.time() - old.read_at < RECORD_EVERY_S:
                return
            self._write(Remembered(tuple(aliases), self._places(aliases), time.time()))
            if is_news:
                self._remove_unused(aliases)
            for version in list(self._uncopied):
                self._copy_all(version)

    def check_not_behind(self, aliases: Sequence[AliasState]) -> None:
        """Raise RegistryBehind where this process knows a later move of an alias than `aliases` do.

        Generations only grow and no alias is ever removed, so the registry is an older copy or another one.
        """
        read = {alias.name: alias for alias in aliases}
        for known in () if self.remembered is None else self.remembered.aliases:
            found = read.get(known.name)
            generation = 0 if found is None else found.generation
            if generation < known.generation or (
                found is not None and generation == known.generation and found.version != known.version
            ):
                raise RegistryBehind(
                    f"The registry has generation {generation} of {known.name}, and this process has read generation "
                    f"{known.generation}: the database is an older copy or another one. Restore the right one, or "
                    f"remove {self._file} and start again to follow this one."
                )

    def found(self, version: str, place: Place) -> None:
        """Note where the registry has a version."""
        self._found[version] = place

    def keep(self, version: str) -> None:
        """Copy a version that an alias points at, and what it lies over. A failure is told by `error`."""
        with self._changing:
            if self.remembered is None:
                return
            places = self._places(self.remembered.aliases)
            if places != self.remembered.places:
                self._write(replace(self.remembered, places=places))
            self._copy_all(version)

    def place(self, version: str) -> Place | None:
        """Where a version was when the registry could be read, as far as an alias needs it."""
        return None if self.remembered is None else self.remembered.places.get(version)

    def copy(self, version: str) -> Path | None:
        """The copy of a version, verified; None where there is no good one."""
        folder = self._copies / version
        try:
            verify(folder, version)
        except DamagedVersion as error:
            if folder.exists():
                logger.error("this process's own copy of version %s is damaged: %s", version[:12], error)
            return None
        return folder

    def _places(self, aliases: Sequence[AliasState]) -> dict[str, Place]:
        def find(version: str) -> Place | None:
            return self._found.get(version) or self.place(version)

        chains = (self._chain(alias.version, find) for alias in aliases)
        return {version: place for chain in chains for version, place in chain}

    def _chain(self, version: str | None, find: Callable[[str], Place | None]) -> Iterator[tuple[str, Place]]:
        """A version and what it lies over, as far as it is known."""
        seen = set[str]()
        while version is not None and version not in seen:
            seen.add(version)
            place = find(version)
            if place is None:
                return
            yield version, place
            version = _base_version(self._copies / version) or _base_version(place)

    def _write(self, remembered: Remembered) -> None:
        self.remembered = remembered
        try:
            _write(self._file, remembered)
        except OSError as error:
            self._unwritten = str(error)
            logger.error("this process's state cannot be written: %s", error)
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)
        else:
            self._unwritten = None

    def _copy_all(self, version: str) -> None:
        """Copy a version and what it lies over, as far as that has files."""
        try:
            for one, place in self._chain(version, self.place):
                if isinstance(place, Path):
                    self._copy(one, place)
        except (OSError, CheckpointError) as error:
            self._uncopied[version] = str(error)
            logger.error("version %s cannot be copied to this process's state: %s", version[:12], error)
        else:
            self._uncopied.pop(version, None)

    def _copy(self, version: str, source: Path) -> None:
        if self.copy(version) is not None:
            return
        target = self._copies / version
        shutil.rmtree(target, ignore_errors=True)
        with atomic_folder(target) as working:
            for file in source.iterdir():
                shutil.copyfile(file, working / file.name)
            verify(working, version)

    def _remove_unused(self, aliases: Sequence[AliasState]) -> None:
        """Remove the copies of versions that no alias points at or did before, and what a crash has left."""

        def find(version: str) -> Path | None:
            folder = self._copies / version
            return folder if folder.is_dir() else None

        roots = [version for alias in aliases for version in (alias.version, alias.previous)]
        needed = {version for root in roots for version, _ in self._chain(root, find)}
        for folder in self._copies.glob("*"):
            if folder.name not in needed:
                shutil.rmtree(folder, ignore_errors=True)
        self._uncopied = {version: why for version, why in self._uncopied.items() if version in roots}


def _base_version(place: Place) -> str | None:
    """What a delta's folder says that it lies over."""
    try:
        return read_description(place).base_version if isinstance(place, Path) and is_delta(place) else None
    except (DeltaError, OSError):
        return None


def _read(file: Path) -> Remembered | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        places = {
            str(version): Path(place["folder"]) if "folder" in place else str(place["reference"])
            for version, place in content["places"].items()
        }
        aliases = tuple(AliasState(**alias) for alias in content["aliases"])
        return Remembered(aliases, places, float(content["read_at"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.error("%s cannot be read and is not used: %s", file, error)
        return None


def _write(file: Path, remembered: Remembered) -> None:
    places = {
        version: {"folder": str(place.absolute())} if isinstance(place, Path) else {"reference": place}
        for version, place in remembered.places.items()
    }
    content = {
        "format": FORMAT,
        "read_at": remembered.read_at,
        "aliases": [asdict(alias) for alias in remembered.aliases],
        "places": places,
    }
    write_atomic(file, json.dumps(content, indent=2) + "\n")


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be written ({error.strerror}); name another folder in SDS_CLIP_STATE_DIR."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(
            f"{folder} is another process's state, or its file system has no locks ({error.strerror}): give each "
            "serving process a folder of its own in SDS_CLIP_STATE_DIR."
        ) from error
    return descriptor
