"""Removes what `decide` lets go, by the code of the DELETE routes and one thing at a time."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from sds_clip.app.datasets.folders import DatasetFolders
from sds_clip.app.datasets.leftovers import remove_leftovers
from sds_clip.app.errors import (
    DatasetBusy,
    FilesOutside,
    JobStateConflict,
    RecordInUse,
    StoreUnavailable,
    UnknownRecord,
)
from sds_clip.app.inside import inside, version_folder
from sds_clip.app.registry.source import REPORTS, FileReports
from sds_clip.app.removal import remove_job_files, remove_version_files
from sds_clip.app.retention.policy import Finding, Rules, decide
from sds_clip.app.store import Store
from sds_clip.app.store.retention import Kind

logger = logging.getLogger(__name__)

TTL_S = 600.0
"""How long a sweep whose process was killed keeps others from beginning one."""
_BATCH = 20
_FOLDERS = {Kind.VERSION: "versions", Kind.DATASET: "datasets/sets"}


class SweepUnderWay(Exception):
    """Another process is removing things."""


class Sweeper:
    """Finds what the rules let go, and removes it. Every method raises StoreUnavailable and OSError."""

    def __init__(self, store: Store, data_dir: Path, rules: Rules) -> None:
        self._store = store
        self._data_dir = data_dir
        self._rules = rules

    def find(self) -> list[Finding]:
        """What is older than its limit now, whether it goes or stays."""
        holdings = self._store.retention.holdings(self._rules.limits)
        return decide(holdings, self._rules, served=self._served())

    def size_of(self, finding: Finding) -> int:
        """The bytes of its files."""
        folder = _FOLDERS.get(finding.kind, "jobs")
        with contextlib.suppress(FilesOutside):  # which `_remove` refuses
            if finding.folder is not None:
                return _size_of(inside(self._data_dir / folder, self._data_dir / finding.folder))
        return 0

    def sweep(self, owner: str) -> Iterator[tuple[Finding, int]]:
        """Remove everything that goes, and yield it with the size of its files in bytes. `owner` names this process.

        What cannot be removed is logged, and left for the next sweep. A kill leaves records that are whole, removed or
        about to be, and files that the next sweep or the workers' cleanup removes.

        Raises: SweepUnderWay.
        """
        if not self._store.retention.claim_sweep(owner, TTL_S):
            raise SweepUnderWay("Another process is removing things; try again later.")
        try:
            folders = DatasetFolders(self._data_dir / "datasets")
            remove_leftovers(self._store, folders)
            tried: set[tuple[Kind, str]] = set()
            # Decide again after each batch, since what was found may be in use by then.
            while batch := [
                each for each in self.find() if each.in_use is None and (each.kind, each.id) not in tried
            ][:_BATCH]:
                for finding in batch:
                    if not self._store.retention.claim_sweep(owner, TTL_S):
                        return
                    tried.add((finding.kind, finding.id))
                    size_bytes = self.size_of(finding)
                    if self._remove(finding, folders):
                        logger.info(
                            "The %s %s was removed (%d bytes). %s",
                            finding.kind, finding.id, size_bytes, finding.why,
                        )  # fmt: skip
                        yield finding, size_bytes
        finally:
            with contextlib.suppress(StoreUnavailable):
                self._store.retention.release_sweep(owner)

    def _remove(self, finding: Finding, folders: DatasetFolders) -> bool:
        """Remove one thing. Returns False if it was removed before, is in use by now, or cannot be moved."""
        try:
            if finding.kind is Kind.VERSION:
                folder = version_folder(self._data_dir, str(finding.folder))
                self._store.versions.delete(finding.id)
                remove_version_files(self._store, folder)
            elif finding.kind is Kind.DATASET:
                self._store.datasets.delete(finding.id)
                with contextlib.suppress(DatasetBusy):  # the next sweep removes the files
                    folders.remove(finding.id)
            else:
                ended_for_s = self._rules.limits[finding.kind]
                remove_job_files(self._store, self._data_dir / "jobs", finding.id, ended_for_s=ended_for_s)
                self._store.retention.remove_job(finding.id, ended_for_s=ended_for_s)
        except UnknownRecord:
            return False
        except (RecordInUse, JobStateConflict, FilesOutside) as error:
            logger.info("The %s %s is kept: %s", finding.kind, finding.id, error)
            return False
        except OSError as error:
            logger.warning("The %s %s cannot be removed: %s.", finding.kind, finding.id, error)
            return False
        return True

    def _served(self) -> set[str]:
        """The versions that serving processes have loaded for an alias, or are about to load."""
        try:
            reports = FileReports(self._data_dir / REPORTS, self._store.now).read()
        except FileNotFoundError:  # no process has ever served
            return set()
        names = [name for report in reports for name in report.content.get("models", [])]
        return {name[field] for name in names for field in ("version", "wanted_version") if name.get(field)}


def _size_of(folder: Path) -> int:
    size_bytes = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                size_bytes += os.lstat(os.path.join(parent, file)).st_size
    return size_bytes
