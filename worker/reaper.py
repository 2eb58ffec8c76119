"""Periodic cleanup: jobs whose worker is gone, old job files and events, unused versions, what the settings let go.

Of all workers one cleans up, under a lease, and one sweeps. Several at once would be harmless, since the store decides.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from sds_clip.app.errors import JobStateConflict, UnknownRecord
from sds_clip.app.registry.manifest import VersionError, read_manifest
from sds_clip.app.removal import (
    REMOVING,
    remove_job_files,
    remove_version_files,
    remove_version_leftovers,
)
from sds_clip.app.retention.sweep import Sweeper, SweepUnderWay
from sds_clip.app.store import Store
from sds_clip.app.store.paging import MAX_ROWS
from sds_clip.app.store.records import Lease
from sds_clip.app.store.retention import FoundJob
from sds_clip.app.store.states import HELD, TERMINAL, JobStatus
from sds_clip.models.checkpoints.references import is_version
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.fitness import Fitness
from sds_clip.worker.folders import JobFolder
from sds_clip.worker.identity import owner_name
from sds_clip.worker.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 600.0
_LEASE = "cleanup"


class Reaper:
    """Cleans up at each `look`, and thoroughly at each `sweep`.

    Without the right data folder it touches no files, since records would lose theirs.
    """

    def __init__(self, config: WorkerConfig, store: Store, fitness: Fitness, metrics: WorkerMetrics) -> None:
        self._config = config
        self._store = store
        self._fitness = fitness
        self._metrics = metrics
        self._owner = owner_name(os.getpid(), config.queue)

    def look(self) -> None:
        """Settle abandoned jobs, and remove checkpoints of cancelled ones. Raises StoreUnavailable."""
        for job in self._store.leases.settle_abandoned():
            logger.info(
                "Job %s is now %s, because its worker stopped renewing its lease.", job.id, job.status
            )
        if self._fitness.has_its_folder:
            for job in self._store.jobs.list(status=JobStatus.CANCELLED).items:
                self._clean_cancelled(Lease.of(job))

    def sweep(self) -> None:
        """Remove what jobs that have ended need no more, and what the settings let go, unless another process does so.

        Raises: StoreUnavailable, OSError.
        """
        if not self._fitness.has_its_folder:
            return
        self.clean()
        sweeper = Sweeper(self._store, self._config.data_dir, self._config.retention)
        if self._config.retention.limits:
            with contextlib.suppress(SweepUnderWay):
                for finding, size_bytes in sweeper.sweep(self._owner):
                    self._metrics.removed(finding.kind, size_bytes)

    def clean(self) -> None:
        """Remove only what belongs to jobs that have ended, unless another process does so. Raises StoreUnavailable.

        What the store has said of a folder may be old when the folder's turn comes. Therefore each removal that
        could come too soon asks again, in its own transaction.
        """
        for folders in self._batches(self._config.jobs_dir):
            self._clean_jobs(folders)
        if self._may_clean():
            remove_version_leftovers(self._config.versions_dir, held=self._held)
            self._store.leases.forget_use()
        for folders in self._batches(self._config.versions_dir):
            self._clean_versions(folders)
        while self._may_clean() and self._store.events.prune(self._config.keep_events_s):
            pass

    def _may_clean(self) -> bool:
        """Claim or extend the lease. It is not released: while it lasts, no other worker does the same again."""
        return self._store.retention.claim_sweep(self._owner, SWEEP_EVERY_S, name=_LEASE)

    def _batches(self, parent: Path) -> Iterator[Sequence[Path]]:
        """What is in a folder, as many at a time as one statement can name, while this process may clean up."""
        found = sorted(parent.iterdir()) if parent.is_dir() else []
        for start in range(0, len(found), MAX_ROWS):
            if not self._may_clean():
                return
            yield found[start : start + MAX_ROWS]

    def _clean_jobs(self, folders: Sequence[Path]) -> None:
        found = self._jobs(folder.name for folder in folders)
        for folder in folders:
            if folder.name.startswith(REMOVING):
                shutil.rmtree(folder, ignore_errors=True)
            elif (job := found.get(folder.name)) is not None:  # otherwise it belongs to another database
                self._clean_job(folder, job)

    def _clean_job(self, folder: Path, job: FoundJob) -> None:
        if job.status is JobStatus.SUCCEEDED and job.files_removed_at is None:
            self._clean_succeeded(folder, job)
        elif self._ended_long_ago(job) or (job.status in TERMINAL and job.files_removed_at is not None):
            self._remove_job(job)
        elif job.status is JobStatus.CANCELLED:
            self._clean_cancelled(job.lease)

    def _clean_cancelled(self, lease: Lease) -> None:
        """Keep only the newest whole checkpoint, from which a retry continues."""
        if (self._config.jobs_dir / lease.job_id).is_dir():
            JobFolder(self._config.jobs_dir, lease).keep_newest_checkpoint()

    def _remove_job(self, job: FoundJob) -> None:
        try:
            remove_job_files(
                self._store, self._config.jobs_dir, job.id, ended_for_s=self._config.keep_files_s
            )
            logger.info("The files of job %s (%s) were removed.", job.id, job.status)
        except (JobStateConflict, UnknownRecord):  # the job was retried, or its record removed
            pass
        except OSError as error:
            logger.warning("The files of job %s cannot be removed: %s.", job.id, error)

    def _clean_succeeded(self, folder: Path, job: FoundJob) -> None:
        """A job cleans up after itself unless it is killed. Keep only the result files that its row names."""
        if job.result_files:
            attempt = JobFolder(self._config.jobs_dir, job.lease)
            attempt.drop_earlier()
            attempt.drop()
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _clean_versions(self, folders: Sequence[Path]) -> None:
        """Remove versions that were deleted, or never registered by a job that ended long ago.

        Without a record of the version or its job here, it belongs to another database and stays.
        """
        versions = {folder.name: folder for folder in folders if is_version(folder.name)}
        known = self._store.versions.among(versions)
        deleted = known - self._store.versions.ready(versions)
        makers = {name: _maker(folder) for name, folder in versions.items() if name not in known}
        found = self._jobs(filter(None, makers.values()))
        ended = {id for id, job in found.items() if self._ended_long_ago(job)}
        for name, folder in versions.items():
            if name in deleted or makers.get(name) in ended:
                self._remove_version(folder)

    def _remove_version(self, folder: Path) -> None:
        try:
            if remove_version_files(self._store, folder):
                logger.info("The files of the unused version %s were removed.", folder.name[:12])
        except OSError as error:
            logger.warning("The files of version %s cannot be removed: %s.", folder.name[:12], error)

    def _ended_long_ago(self, job: FoundJob) -> bool:
        if job.status not in TERMINAL or job.finished_at is None:
            return False
        return self._store.now() - job.finished_at >= self._config.keep_files_s

    def _held(self, job_ids: Collection[str]) -> dict[str, int]:
        return {id: job.fence for id, job in self._jobs(job_ids).items() if job.status in HELD}

    def _jobs(self, ids: Iterable[str]) -> dict[str, FoundJob]:
        return {job.id: job for job in self._store.retention.found(ids)}


def _maker(folder: Path) -> str | None:
    """The job that has written a version, by its manifest."""
    with contextlib.suppress(VersionError):
        return read_manifest(folder).job
    return None
