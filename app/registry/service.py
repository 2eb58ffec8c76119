"""The version and alias operations behind the routes: read, promote, roll back, lock, delete, download."""

import asyncio
import logging
from functools import partial
from pathlib import Path
from typing import BinaryIO

from app.errors import NotBetter, UnknownRecord, VersionDamaged
from app.keys import Caller
from app.registry.download import Download, Downloads
from app.registry.manifest import DamagedFiles, verify
from app.registry.removal import remove_files
from app.registry.store_source import mark_damaged
from app.run_log import open_log
from app.schemas.versions import LockRequest, PromoteRequest, RollbackRequest, VersionDetail
from app.store import Store
from app.store.alias_names import check_alias
from app.store.records import Alias, Move, Page, Version, VersionStatus
from app.store_threads import StoreThreads, in_store_thread
from app.threads import in_own_thread
from models.references import is_version
from models.run_files import LOG_FILE

logger = logging.getLogger(__name__)

LOCAL = "local"
"""The recorded author of what is done to an alias in a service without keys."""
LOCKED = "locked"
"""A job's result has this key in `promotion` if only the alias's lock kept its version from being promoted."""
_MAX_LINEAGE = 32


class VersionService:
    """Reads and changes versions and aliases.

    Every method raises StoreUnavailable and StoreBusy, and UnknownRecord for an unknown version or alias.
    """

    def __init__(self, store: Store, threads: StoreThreads, downloads: Downloads, data_dir: Path) -> None:
        self._store = store
        self._threads = threads
        self._downloads = downloads
        self._data_dir = data_dir

    @in_store_thread
    def list(self, *, after: str | None, limit: int) -> tuple[Page[Version], tuple[Alias, ...]]:
        """Versions that are not deleted, newest first, and the aliases."""
        return self._store.versions.list(after=after, limit=limit), self._store.aliases.all()

    @in_store_thread
    def get(self, name: str) -> VersionDetail:
        """A version by its id or an alias, including a deleted one."""
        version = self._version(name)
        aliases = tuple(alias for alias in self._store.aliases.all() if alias.version == version.id)
        promotions = [
            promotion
            for alias in aliases
            for promotion in self._store.aliases.promotions(alias.name)
            if promotion.to_version == version.id
        ]
        lineage: list[str] = []
        base = version.base_version
        while base is not None and len(lineage) < _MAX_LINEAGE:
            lineage.append(base)
            base = self._store.versions.get(base).base_version
        return VersionDetail.detailed(version, aliases, lineage, promotions)

    async def promote(self, version_id: str, request: PromoteRequest, caller: Caller) -> Alias:
        """Point an alias to a version. An alias that already points to it is left unchanged.

        Raises: UnusableRecord for a deleted version, VersionDamaged, NotBetter, AliasLocked, AliasMoved,
        InvalidRequest.
        """
        check_alias(request.alias)
        version = await self._threads.run(self._store.versions.get, version_id)
        if version.folder is not None and version.status is VersionStatus.READY:
            await self._verify(self._data_dir / version.folder, version.id)
        return await self._threads.run(self._promote, version, request, caller)

    @in_store_thread
    def roll_back(self, alias: str, request: RollbackRequest, caller: Caller) -> Alias:
        """Point an alias to its previous version. Raises NothingToRollBack, AliasLocked, AliasMoved."""
        move = Move(
            alias=alias,
            who=caller.name or LOCAL,
            why=request.reason,
            expected_generation=request.expected_generation,
        )
        return self._store.aliases.roll_back(move)

    @in_store_thread
    def lock(self, alias: str, request: LockRequest, caller: Caller) -> Alias:
        """Keep an alias where it is. An alias that is locked keeps its first lock."""
        return self._store.aliases.lock(alias, caller.name or LOCAL, request.reason)

    @in_store_thread
    def unlock(self, alias: str, request: LockRequest, caller: Caller) -> Alias:
        """Let an alias be moved again. It is no error if it is not locked."""
        return self._store.aliases.unlock(alias, caller.name or LOCAL, request.reason)

    async def delete(self, version_id: str) -> None:
        """Delete a version, and its files unless a job has published it again meanwhile.

        Raises RecordInUse.
        """
        version = await self._threads.run(self._store.versions.delete, version_id)
        if version.folder is not None:
            await asyncio.shield(
                in_own_thread(
                    partial(remove_files, self._store, self._data_dir / version.folder),
                    f"remove {version.id[:12]}",
                )
            )

    async def download(self, name: str, *, full: bool) -> Download:
        """A version's files, as published or as full weights.

        Raises: VersionDamaged, and what `Downloads.of` raises.
        """
        version = await self._threads.run(self._version, name)
        if version.folder is not None and version.status is VersionStatus.READY:
            await self._verify(self._data_dir / version.folder, version.id)
        return await self._downloads.of(version, full=full)

    @in_store_thread
    def log(self, name: str) -> BinaryIO:
        """The log of the run that made a version. Raises NotFound."""
        folder = self._version(name).folder
        return open_log([] if folder is None else [self._data_dir / folder / LOG_FILE])

    def _version(self, name: str) -> Version:
        if is_version(name):
            return self._store.versions.get(name)
        try:
            return self._store.versions.get(self._store.aliases.get(name).version)
        except UnknownRecord:
            raise UnknownRecord("version") from None

    async def _verify(self, folder: Path, version_id: str) -> None:
        def check() -> bool:
            try:
                verify(folder, version_id)
            except DamagedFiles as error:
                logger.error("Version %s is damaged: %s", version_id[:12], error)
                return False
            return True

        is_whole = await in_own_thread(check, f"verify {version_id[:12]}")
        await in_own_thread(lambda: mark_damaged(self._store, version_id, not is_whole), "mark damaged")
        if not is_whole:
            raise VersionDamaged(version_id, param="version")

    def _promote(self, version: Version, request: PromoteRequest, caller: Caller) -> Alias:
        try:
            alias = self._store.aliases.get(request.alias)
        except UnknownRecord:
            alias = None
        if not request.force:
            self._refuse_worse(version, request.alias)
        generation = 0 if alias is None else alias.generation
        move = Move(
            alias=request.alias,
            who=caller.name or LOCAL,
            why=request.reason,
            expected_generation=generation
            if request.expected_generation is None
            else request.expected_generation,
            forced=request.force,
        )
        if alias is not None and alias.version == version.id and move.expected_generation == generation:
            return alias
        return self._store.aliases.promote(move, version.id)

    def _refuse_worse(self, version: Version, alias: str) -> None:
        """Refuse a version that its own job compared and did not promote.

        Only an explicit `force` overrides that.
        """
        if version.job_id is None:
            return
        verdict = (self._store.jobs.get(version.job_id).result or {}).get("promotion") or {}
        if verdict.get("alias") == alias and verdict.get("promoted") is False and not verdict.get(LOCKED):
            raise NotBetter(
                f"Its job {version.job_id} compared this version and did not promote it: {verdict.get('why')} "
                "Send force: true to promote it anyway.",
                param="force",
            )
