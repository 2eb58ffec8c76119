"""A serving process's registry in the store: versions and aliases from SQL, weights from the data folder."""

import contextlib
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sds_clip.app.data_folder import DataFolder
from sds_clip.app.errors import AliasLocked, AliasMoved, StoreUnavailable, UnknownRecord
from sds_clip.app.inside import version_folder
from sds_clip.app.registry.source import REPORTS, FileReports, Registry, WeightsLocation
from sds_clip.app.store import Store
from sds_clip.app.store.alias_names import DEFAULT
from sds_clip.app.store.records import Alias, Move, NewVersion, Version, VersionStatus
from sds_clip.models.checkpoints.references import canonical
from sds_clip.models.clip.model import Clip

logger = logging.getLogger(__name__)

REFERENCE = "reference"
"""The description of a version without a folder has the operator's reference to it under this key."""
SERVER = "sds-clip serve"
"""The recorded author when the service moves an alias at its start. No key can have this name."""
_FORGET_REPORTS_S = 24 * 3600.0


def registry_of(store: Store, data_dir: Path, folder: DataFolder) -> Registry:
    """The registry of a serving process.

    Its reports are files, which all processes of the data folder can read.
    """
    reports = data_dir / REPORTS
    _forget(reports)
    return Registry(
        find_version=partial(find_version, store, data_dir),
        seen=lambda versions, owner: store.seen_by(owner).versions.ready(versions),
        read_aliases=store.aliases.ever,
        reports=FileReports(reports, store.now),
        mark_damaged=partial(mark_damaged, store, folder),
        begun=lambda prefix, owner: store.seen_by(owner).versions.begun(prefix),
    )


def find_version(store: Store, data_dir: Path, version: str) -> WeightsLocation | None:
    """Where a registered version's weights are. Files that a failed job left on disk are not a version.

    Raises: StoreUnavailable, FilesOutside.
    """
    try:
        found = store.versions.get(version)
    except UnknownRecord:
        return None
    return None if found.status is VersionStatus.DELETED else weights_location(found, data_dir)


def mark_damaged(store: Store, folder: DataFolder, version: str, is_damaged: bool) -> None:
    """Record whether a version's files were found damaged. What another data folder lacks is not damaged.

    If the database is unavailable, the finding is only logged, and the next check records it.
    """
    try:
        if is_damaged and not folder.look():
            return
        store.versions.mark_damaged(version, is_damaged)
    except StoreUnavailable:
        logger.warning("The result of the damage check of version %s cannot be recorded.", version[:12])


def weights_location(version: Version, data_dir: Path) -> WeightsLocation:
    """The operator's reference, or the folder of a published version. Raises: FilesOutside."""
    if version.folder is None:
        return str(version.description[REFERENCE])
    return version_folder(data_dir, version.folder)


def register_served(store: Store, clips: Sequence[Clip]) -> None:
    """Register the models that the service was started with, and point `default` at the first.

    This makes it possible to return from a job's version to the original. An alias that is locked, or that a person
    or a job has moved, stays where it is, unless that is a model of an earlier start which is no longer served.

    Raises: StoreUnavailable.
    """
    for clip in clips:
        store.versions.register(unpublished_version(clip))
    first, alias = clips[0].version, store.aliases.find(DEFAULT)
    if alias is not None and alias.version == first:
        return
    if alias is not None and (alias.lock is not None or not _follows_the_start(store, alias, clips)):
        logger.info(
            "The alias %s was %s version %s and stays there. "
            "So the first model in the settings, %s, is not the default.",
            DEFAULT, "moved to" if alias.lock is None else "locked on", alias.version[:12], first[:12],
        )  # fmt: skip
        return
    move = Move(
        alias=DEFAULT,
        who=SERVER,
        why="The first model that the service was started with.",
        expected_generation=0 if alias is None else alias.generation,
    )
    with contextlib.suppress(AliasMoved, AliasLocked):  # another process may have moved or locked it first
        store.aliases.promote(move, first)


def _follows_the_start(store: Store, alias: Alias, clips: Sequence[Clip]) -> bool:
    if store.aliases.promotions(DEFAULT, limit=1, moves_only=True)[0].who == SERVER:
        return True
    # A rollback leads a person to the operator's model. That is no reason to keep it once the operator serves others.
    is_published = store.versions.get(alias.version).folder is not None
    return not is_published and alias.version not in {clip.version for clip in clips}


def unpublished_version(clip: Clip) -> NewVersion:
    """The row for weights that were not published: a version without a folder, found by its reference."""
    description = {
        REFERENCE: canonical(clip.reference),
        "architecture": clip.architecture,
        "quick_gelu": clip.quick_gelu,
        **clip.identity.description,
    }
    return NewVersion(clip.version, None, description, clip.size_bytes, base=clip.reference)


def _forget(reports: Path) -> None:
    """Remove the reports of processes that ended long ago."""
    for file in reports.glob("*.json"):
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < time.time() - _FORGET_REPORTS_S:
                FileReports(reports).remove(file.stem)
