"""The state that a serving process keeps, so that it can start while the registry is unavailable or damaged.

    aliases.json         the aliases as last read, and the locations of the weights that they point to
    versions/VERSION/    a copy of a published version, verified when it was made and again before it is used
    checked.txt          the versions that this machine need not check again (app/registry/checked_golden.py)
    lock                 held while the process lives: two processes never share a state
    2/, 3/ ...           the same for further processes that are given the same folder

An alias is recorded, and its version copied, before that version is served. A process that is killed at any
moment therefore finds here the versions that it served, or newer aliases, but never older ones
(docs/decisions/0019-never-the-wrong-weights.md).
"""

import contextlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from sds_clip.app.errors import ConfigurationError
from sds_clip.app.inside import inside
from sds_clip.app.registry.checked_golden import Checked
from sds_clip.app.registry.manifest import DamagedFiles, verify
from sds_clip.app.registry.source import WeightsLocation
from sds_clip.app.store.records import Alias
from sds_clip.models.atomic import atomic_folder, write_atomic
from sds_clip.models.checkpoints.delta_file import DeltaError, read_description
from sds_clip.models.checkpoints.references import is_delta
from sds_clip.models.errors import CheckpointError

logger = logging.getLogger(__name__)

FORMAT = 1
MAX_PROCESSES = 32
# How often unchanged aliases are recorded again, and so the precision of `read_at`. Each time syncs the disk.
RECORD_EVERY_S = 30.0
_FILE = "aliases.json"
_ALIAS_FIELDS = ("name", "version", "generation", "previous", "removed_at")


@dataclass(frozen=True)
class Remembered:
    """The last reading of the registry."""

    aliases: Sequence[Alias]
    locations: Mapping[str, WeightsLocation]
    """The locations of the versions that aliases point to, and of their bases."""
    read_at: float
    """Seconds since the epoch."""


class RegistryBehind(Exception):
    """The registry is older than what this process has read from it before."""


class LocalState:
    """The state of one process, in a folder that it locks. If another process holds it, a folder in it is used.

    So copies of one service may share a volume. They read the same registry, so each may take over what another one
    has kept.

    Raises: ConfigurationError if the folder cannot be written, or too many processes hold it.
    """

    def __init__(self, folder: Path) -> None:
        folder, self._lock = _locked(folder)
        self._copies = folder / "versions"
        self._file = folder / _FILE
        self.checked = Checked(folder / "checked.txt")
        """The versions that were checked here."""
        self._changing = threading.Lock()
        self._found: dict[str, WeightsLocation] = {}
        self._unwritten: str | None = None
        self._uncopied: dict[str, str] = {}
        self.remembered: Remembered | None = _read(self._file)
        """None if the registry was never read."""

    def close(self) -> None:
        """Release the lock, so that another process can use the folder."""
        self._lock.release()

    @property
    def error(self) -> str | None:
        """Why a part of the state could not be written. Writing is retried."""
        return self._unwritten or next(iter(self._uncopied.values()), None)

    def record(self, aliases: Sequence[Alias]) -> None:
        """Remember the aliases that were read.

        If they cannot be written, no older state is left on disk, and `error` says why.
        """
        with self._changing:
            old = self.remembered
            is_news = old is None or _content(old.aliases) != _content(aliases)
            if not is_news and old is not None and time.time() - old.read_at < RECORD_EVERY_S:
                return
            self._write(Remembered(tuple(aliases), self._locations(aliases), time.time()))
            if is_news:
                self._remove_unused(aliases)
            for version in list(self._uncopied):
                self._copy_all(version)

    def check_not_behind(self, aliases: Sequence[Alias]) -> None:
        """Raise RegistryBehind if this process has seen a later move of an alias than `aliases` contains.

        Generations only grow, and a removed alias keeps its own, so such a registry is an older copy or a
        different one.
        """
        known = () if self.remembered is None else self.remembered.aliases
        if (moved := _moved_later(known, aliases)) is not None:
            alias, generation = moved
            raise RegistryBehind(
                f"The database has generation {generation} of the alias {alias.name}, but this process has "
                f"already read generation {alias.generation}. It is an older copy or another database. "
                f"Restore the right database, or remove {self._file} and restart to use this one."
            )

    def note_location(self, version: str, location: WeightsLocation) -> None:
        self._found[version] = location

    def keep(self, version: str) -> None:
        """Copy a version that an alias points to, and its bases. `error` reports a failure."""
        with self._changing:
            if self.remembered is None:
                return
            locations = self._locations(self.remembered.aliases)
            if locations != self.remembered.locations:
                self._write(replace(self.remembered, locations=locations))
            self._copy_all(version)

    def location(self, version: str) -> WeightsLocation | None:
        """Where a version was when the registry was last read, if an alias needs it."""
        return None if self.remembered is None else self.remembered.locations.get(version)

    def whole_copy(self, version: str) -> Path | None:
        """The verified copy of a version, or None if there is no good one."""
        folder = inside(self._copies, self._copies / version)
        try:
            verify(folder, version)
        except DamagedFiles as error:
            if folder.exists():
                logger.error("This process's own copy of version %s is damaged: %s", version[:12], error)
            return None
        return folder

    def _locations(self, aliases: Sequence[Alias]) -> dict[str, WeightsLocation]:
        def find(version: str) -> WeightsLocation | None:
            return self._found.get(version) or self.location(version)

        chains = (self._lineage(alias.version, find) for alias in _living(aliases))
        return {version: location for chain in chains for version, location in chain}

    def _lineage(
        self, version: str | None, find: Callable[[str], WeightsLocation | None]
    ) -> Iterator[tuple[str, WeightsLocation]]:
        """A version, its base, the base's base and so on, as far as they are known."""
        seen = set[str]()
        while version is not None and version not in seen:
            seen.add(version)
            location = find(version)
            if location is None:
                return
            yield version, location
            version = _base_version(self._copies / version) or _base_version(location)

    def _write(self, remembered: Remembered) -> None:
        self.remembered = remembered
        try:
            _write(self._file, remembered)
        except OSError as error:
            self._unwritten = str(error)
            logger.error("The state of this process cannot be written: %s", error)
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)
        else:
            self._unwritten = None

    def _copy_all(self, version: str) -> None:
        try:
            for one, location in self._lineage(version, self.location):
                if isinstance(location, Path):
                    self._copy(one, location)
        except (OSError, CheckpointError) as error:
            self._uncopied[version] = str(error)
            logger.error(
                "Version %s cannot be copied to the state folder of this process: %s", version[:12], error
            )
        else:
            self._uncopied.pop(version, None)

    def _copy(self, version: str, source: Path) -> None:
        if self.whole_copy(version) is not None:
            return
        target = inside(self._copies, self._copies / version)
        shutil.rmtree(target, ignore_errors=True)
        with atomic_folder(target) as working:
            for file in source.iterdir():
                shutil.copyfile(file, working / file.name)
            verify(working, version)

    def _remove_unused(self, aliases: Sequence[Alias]) -> None:
        """Remove copies of versions that no alias points to or pointed to before, and what a crash left."""

        def find(version: str) -> Path | None:
            folder = self._copies / version
            return folder if folder.is_dir() else None

        roots = [version for alias in _living(aliases) for version in (alias.version, alias.previous)]
        needed = {version for root in roots for version, _ in self._lineage(root, find)}
        for folder in self._copies.glob("*"):
            if folder.name not in needed:
                shutil.rmtree(folder, ignore_errors=True)
        self._uncopied = {version: why for version, why in self._uncopied.items() if version in roots}


def has_state(folder: Path) -> bool:
    """Whether a process has recorded here what it served."""
    return next(folder.rglob(_FILE), None) is not None


def states_ahead(folder: Path, aliases: Sequence[Alias]) -> list[Path]:
    """The files of states below a folder whose processes would take the registry of `aliases` for an older one."""
    found = []
    for file in sorted(folder.rglob(_FILE)):
        remembered = _read(file)
        if remembered is not None and _moved_later(remembered.aliases, aliases) is not None:
            found.append(file)
    return found


def _moved_later(known: Sequence[Alias], aliases: Sequence[Alias]) -> tuple[Alias, int] | None:
    """An alias of which a later move is known than `aliases` contains, and its generation there."""
    read = {alias.name: alias for alias in aliases}
    for alias in known:
        found = read.get(alias.name)
        generation = 0 if found is None else found.generation
        if generation < alias.generation or (
            found is not None and generation == alias.generation and found.version != alias.version
        ):
            return alias, generation
    return None


def _base_version(location: WeightsLocation) -> str | None:
    """The base that a delta's folder names, or None for full weights."""
    try:
        if isinstance(location, Path) and is_delta(location):
            return read_description(location).base_version
        return None
    except (DeltaError, OSError):
        return None


def _living(aliases: Sequence[Alias]) -> Iterator[Alias]:
    return (alias for alias in aliases if alias.removed_at is None)


def _content(aliases: Sequence[Alias]) -> list[dict[str, Any]]:
    """The part of aliases that is stored: where each points, but not when it was moved."""
    # A release that knows no removals can read the file as long as there are none.
    values = ({name: getattr(alias, name) for name in _ALIAS_FIELDS} for alias in aliases)
    return [{name: value for name, value in each.items() if value is not None} for each in values]


def _read(file: Path) -> Remembered | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        locations = {
            str(version): Path(place["folder"]) if "folder" in place else str(place["reference"])
            for version, place in content["places"].items()
        }
        aliases = tuple(Alias(**alias) for alias in content["aliases"])
        return Remembered(aliases, locations, float(content["read_at"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.error("%s cannot be read, so it is not used: %s", file, error)
        return None


def _write(file: Path, remembered: Remembered) -> None:
    places = {
        version: {"folder": str(location.absolute())}
        if isinstance(location, Path)
        else {"reference": location}
        for version, location in remembered.locations.items()
    }
    content = {
        "format": FORMAT,
        "read_at": remembered.read_at,
        "aliases": _content(remembered.aliases),
        "places": places,
    }
    write_atomic(file, json.dumps(content, indent=2) + "\n")


def _locked(root: Path) -> tuple[Path, BaseFileLock]:
    """The first folder that no other process holds, and the lock on it."""
    for folder in (root, *(root / str(number) for number in range(2, MAX_PROCESSES + 1))):
        lock = FileLock(folder / "lock", mode=0o600, thread_local=False, fallback_to_soft=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            continue
        except (OSError, NotImplementedError) as error:
            raise ConfigurationError(
                f"{folder} cannot be written or locked ({error}); name another folder in SDS_CLIP_STATE_DIR."
            ) from error
        return folder, lock
    raise ConfigurationError(
        f"{MAX_PROCESSES} other processes use the state folder {root}; name another folder in SDS_CLIP_STATE_DIR."
    )
