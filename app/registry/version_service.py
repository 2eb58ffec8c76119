"""The version and alias operations behind the routes: read, promote, roll back, remove, lock, delete, download."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from sds_clip.app.errors import (
    AliasMoved,
    Conflict,
    Forbidden,
    NotBetter,
    UnknownRecord,
    UnusableRecord,
    VersionDamaged,
    body,
)
from sds_clip.app.inside import version_folder
from sds_clip.app.keys import Caller
from sds_clip.app.registry.download import Download, Downloads
from sds_clip.app.registry.evidence import evaluations_of, gate_of
from sds_clip.app.registry.manifest import DamagedFiles, verify
from sds_clip.app.removal import remove_version_files
from sds_clip.app.run_log import open_log
from sds_clip.app.schemas.common import ErrorDetail
from sds_clip.app.schemas.promotion import GateInfo, PromotionPlan
from sds_clip.app.schemas.versions import (
    AliasInfo,
    LockRequest,
    PromoteRequest,
    PromotionList,
    RemoveRequest,
    RollbackRequest,
    VersionDetail,
    VersionInfo,
)
from sds_clip.app.store import SeenBy, Workspace
from sds_clip.app.store.alias_names import check_alias
from sds_clip.app.store.paging import Search
from sds_clip.app.store.records import Alias, Move, Version, VersionStatus
from sds_clip.app.store_threads import StoreThreads, in_store_thread
from sds_clip.app.threads import in_own_thread
from sds_clip.models.checkpoints.references import is_prefix, is_version
from sds_clip.models.run_files import LOG_FILE

logger = logging.getLogger(__name__)

LOCAL = "local"
"""The recorded author of what is done to an alias in a service without keys."""
LOCKED = "locked"
"""A job's result has this key in `promotion` if only the alias's lock kept its version from being promoted."""
_MAX_LINEAGE = 32


@dataclass(eq=False)
class VersionService:
    """Reads and changes versions and aliases. It reaches the store only as the workspace of a caller.

    Every method raises StoreUnavailable and StoreBusy, and UnknownRecord for a version that the caller does not see
    and for an unknown alias; and AmbiguousName.
    """

    _seen_by: SeenBy
    _threads: StoreThreads
    _downloads: Downloads
    _data_dir: Path
    _mark_damaged: Callable[[str, bool], None] = lambda version, is_damaged: None

    @in_store_thread
    def list(
        self,
        caller: Caller,
        *,
        status: VersionStatus,
        owner: str | None,
        base: str | None,
        metadata: Mapping[str, str],
        search: Search,
        after: str | None,
        limit: int,
    ) -> tuple[list[VersionInfo], list[AliasInfo], bool]:
        """Versions, newest first; on the first page the aliases; and whether there are more versions."""
        store = self._seen_by(caller.sees)
        page = store.versions.list(
            status=status,
            owner=owner,
            base=base,
            metadata=metadata,
            search=search,
            after=after,
            limit=limit,
        )
        aliases = store.aliases.all()
        versions = [VersionInfo.of(version, aliases, sees=caller.sees) for version in page.items]
        return versions, _shown(store, caller, *aliases) if after is None else [], page.has_more

    @in_store_thread
    def get(self, caller: Caller, name: str) -> VersionDetail:
        """A version by its id, the beginning of it or an alias, including a deleted one."""
        store = self._seen_by(caller.sees)
        version = _version(store, name)
        aliases = tuple(alias for alias in store.aliases.all() if alias.version == version.id)
        promotions = [
            promotion
            for alias in aliases
            for promotion in store.aliases.promotions(alias.name)
            if promotion.to_version == version.id
        ]
        lineage: list[str] = []
        base = version.base_version
        with contextlib.suppress(UnknownRecord):  # the caller does not see that base
            while base is not None and len(lineage) < _MAX_LINEAGE:
                lineage.append(base)
                base = store.versions.get(base).base_version
        evaluations = evaluations_of(store, version)
        return VersionDetail.detailed(version, aliases, lineage, promotions, evaluations, sees=caller.sees)

    @in_store_thread
    def promotions(
        self, caller: Caller, *, alias: str | None, before: int | None, limit: int
    ) -> PromotionList:
        """The audit of the caller's aliases, newest first."""
        aliases = self._seen_by(caller.sees).aliases
        return PromotionList.of(aliases.promotions(alias, before=before, limit=limit + 1), limit)

    @in_store_thread
    def shown(self, caller: Caller, aliases: Sequence[Alias]) -> Sequence[AliasInfo]:
        """The aliases as their caller may see them."""
        return _shown(self._seen_by(caller.sees), caller, *aliases)

    async def promote(self, caller: Caller, version_id: str, request: PromoteRequest) -> AliasInfo:
        """Point an alias to a version. An alias that already points to it is left there. A dry run moves nothing.

        Raises: UnusableRecord for a deleted version, VersionDamaged, FilesOutside, NotBetter, AliasLocked, AliasMoved,
        InvalidRequest, Forbidden.
        """
        check_alias(request.alias)
        version = await self._threads.run(self._promotable, caller, version_id, request)
        for each in await self._threads.run(self._with_bases, version):
            await self._verify(version_folder(self._data_dir, str(each.folder)), each.id)
        return await self._threads.run(self._promote, caller, version, request)

    async def try_out(self, caller: Caller, version_id: str, request: PromoteRequest) -> PromotionPlan:
        """Say what `promote` would do. Raises UnknownRecord and InvalidRequest; other refusals are in the answer."""
        check_alias(request.alias)
        version_id, now, gate = await self._threads.run(self._before, caller, version_id, request.alias)
        after, error = now, None
        try:
            after = await self.promote(caller, version_id, request)
        except (Conflict, Forbidden, UnusableRecord) as refusal:
            error = ErrorDetail(**body(refusal)["error"])
        generation = 0 if now is None else now.generation
        return PromotionPlan(
            name=request.alias,
            from_version=None if now is None else now.version,
            to_version=version_id,
            from_generation=generation,
            generation=generation if after is None else after.generation,
            moves=after is not None and after.generation != generation,
            error=error,
            lock=None if now is None else now.lock,
            gate=gate,
        )

    @in_store_thread
    def roll_back(self, caller: Caller, alias: str, request: RollbackRequest) -> AliasInfo:
        """Point an alias to its previous version. Raises NothingToRollBack, AliasLocked, AliasMoved, Forbidden."""
        store = self._seen_by(caller.sees)
        return _shown(store, caller, store.aliases.roll_back(_move(caller, alias, request)))[0]

    @in_store_thread
    def remove(self, caller: Caller, alias: str, request: RemoveRequest) -> AliasInfo:
        """Remove an alias. Raises RecordInUse for the default, AliasLocked, AliasMoved, Forbidden."""
        store = self._seen_by(caller.sees)
        return _shown(store, caller, store.aliases.remove(_move(caller, alias, request)))[0]

    @in_store_thread
    def lock(self, caller: Caller, alias: str, request: LockRequest) -> AliasInfo:
        store = self._seen_by(caller.sees)
        return _shown(store, caller, store.aliases.lock(alias, caller.name or LOCAL, request.reason))[0]

    @in_store_thread
    def unlock(self, caller: Caller, alias: str, request: LockRequest) -> AliasInfo:
        store = self._seen_by(caller.sees)
        return _shown(store, caller, store.aliases.unlock(alias, caller.name or LOCAL, request.reason))[0]

    async def delete(self, caller: Caller, version_id: str) -> str:
        """Delete a version, and its files unless a job has published it again meanwhile. Returns its whole id.

        Raises RecordInUse, FilesOutside, Forbidden.
        """
        version = await self._threads.run(self._delete, caller, version_id)
        if version.folder is not None:
            folder = version_folder(self._data_dir, version.folder)
            remove = partial(remove_version_files, self._seen_by(None), folder)
            await asyncio.shield(in_own_thread(remove, f"remove {version.id[:12]}"))
        return version.id

    async def download(self, caller: Caller, name: str, *, full: bool) -> Download:
        """A version's files, as published or as full weights.

        Raises: VersionDamaged, and what `Downloads.of` raises.
        """
        version = await self._threads.run(_version, self._seen_by(caller.sees), name)
        if version.folder is not None and version.status is VersionStatus.READY:
            await self._verify(version_folder(self._data_dir, version.folder), version.id)
        return await self._downloads.of(version, full=full)

    @in_store_thread
    def log(self, caller: Caller, name: str) -> BinaryIO:
        """The log of the run that made a version. Raises NotFound, FilesOutside."""
        folder = _version(self._seen_by(caller.sees), name).folder
        return open_log([] if folder is None else [version_folder(self._data_dir, folder) / LOG_FILE])

    async def _verify(self, folder: Path, version_id: str) -> None:
        def check() -> bool:
            try:
                verify(folder, version_id)
            except DamagedFiles as error:
                logger.error("Version %s is damaged: %s", version_id[:12], error)
                return False
            return True

        is_whole = await in_own_thread(check, f"verify {version_id[:12]}")
        await in_own_thread(partial(self._mark_damaged, version_id, not is_whole), "mark damaged")
        if not is_whole:
            raise VersionDamaged(version_id, param="version")

    def _before(self, caller: Caller, version_id: str, name: str) -> tuple[str, AliasInfo | None, GateInfo]:
        """The version's whole id, the alias as it is, and what the gate says about the version."""
        store = self._seen_by(caller.sees)
        version, alias = _by_id(store, version_id), store.aliases.find(name)
        gate = gate_of(store, self._data_dir, version, None if alias is None else alias.version)
        return version.id, None if alias is None else _shown(store, caller, alias)[0], gate

    def _promotable(self, caller: Caller, version_id: str, request: PromoteRequest) -> Version:
        """The version, if the caller may point the alias to it. Raises Forbidden."""
        store = self._seen_by(caller.sees)
        if request.owner is not None:
            caller.check("admin", "Giving an alias to a key", param="owner")
        if caller.is_admin:
            return _by_id(store, version_id)
        alias = store.aliases.find(request.alias)
        if alias is None or alias.owner != caller.name:
            caller.check("admin", "Moving an alias that was not given to this key", param="alias")
        version = _by_id(store, version_id)
        if not self._seen_by(caller.name).versions.made(version.id):
            caller.check("admin", "Promoting a version of another key", param="version")
        return version

    def _with_bases(self, version: Version) -> Sequence[Version]:
        """The version, and the published ones that it is based on, without any of which it cannot be loaded."""
        chain: dict[str, Version] = {}
        with contextlib.suppress(UnknownRecord):  # a base on the operator's list
            while version.folder is not None and version.status is VersionStatus.READY:
                chain[version.id] = version
                if version.base_version is None or version.base_version in chain:
                    break
                version = self._seen_by(None).versions.get(version.base_version)
        return list(chain.values())

    def _promote(self, caller: Caller, version: Version, request: PromoteRequest) -> AliasInfo:
        store = self._seen_by(caller.sees)
        if not request.force:
            _refuse_worse(store, version, request.alias)
        move = replace(_move(caller, request.alias, request), forced=request.force, give_to=request.owner)
        while True:
            try:
                alias = store.aliases.promote(move, version.id, dry_run=request.dry_run)
                return _shown(store, caller, alias)[0]
            except AliasMoved:
                if request.expected_generation is not None:
                    raise
                # Another caller has just created the alias, so there is one to move now.

    def _delete(self, caller: Caller, version_id: str) -> Version:
        store = self._seen_by(caller.sees)
        version = _by_id(store, version_id)
        if version.owner != caller.name:
            caller.check("admin", "Deleting a version of another key", param="version")
        if version.folder is not None:
            version_folder(self._data_dir, version.folder)
        return store.versions.delete(version.id)


def _move(caller: Caller, alias: str, request: PromoteRequest | RollbackRequest | RemoveRequest) -> Move:
    """The move that a request asks for, of the aliases that the caller may move."""
    return Move(
        alias=alias,
        who=caller.name or LOCAL,
        why=request.reason,
        expected_generation=request.expected_generation,
        of_owner=None if caller.is_admin else caller.name,
    )


def _shown(store: Workspace, caller: Caller, *aliases: Alias) -> "list[AliasInfo]":
    """The aliases as their caller may see them: without unseen previous versions, and others' without their owner."""
    seen = store.versions.among([alias.previous for alias in aliases if alias.previous is not None])
    return [
        AliasInfo.model_validate(
            replace(
                alias,
                previous=alias.previous if alias.previous in seen else None,
                owner=alias.owner if caller.sees in (None, alias.owner) else "",
            )
        )
        for alias in aliases
    ]


def _version(store: Workspace, name: str) -> Version:
    alias = None if is_version(name) else store.aliases.find(name)
    return _by_id(store, name) if alias is None else store.versions.get(alias.version)


def _by_id(store: Workspace, given: str) -> Version:
    """The version with an id, or whose id begins so. An alias of that name is not taken for another version."""
    if is_prefix(given) and store.aliases.find(given) is None:
        given = store.versions.named(given)
    return store.versions.get(given)


def _refuse_worse(store: Workspace, version: Version, alias: str) -> None:
    """Refuse a version that its own job compared and did not promote.

    Only an explicit `force` overrides that.
    """
    if version.job_id is None:
        return
    with contextlib.suppress(UnknownRecord):  # another owner's job made the same weights first
        verdict = (store.jobs.get(version.job_id).result or {}).get("promotion") or {}
        if verdict.get("alias") == alias and verdict.get("promoted") is False and not verdict.get(LOCKED):
            raise NotBetter(
                f"Its job {version.job_id} compared this version and did not promote it: {verdict.get('why')} "
                "Send force: true to promote it anyway.",
                param="force",
            )
