"""Periodic cleanup: jobs whose worker is gone, old job files and events, unused versions, what the settings let go.

Every worker runs it. Several at once are harmless, since the store decides. Only one at a time sweeps.
"""

import contextlib
import logging
import os
import shutil
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
from sds_clip.app.store.records import Job, Lease, VersionStatus
from sds_clip.app.store.states import HELD, TERMINAL, JobStatus
from sds_clip.models.checkpoints.references import is_version
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.fitness import Fitness
from sds_clip.worker.folders import JobFolder
from sds_clip.worker.identity import owner_name
from sds_clip.worker.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 600.0


class Reaper:
    """Cleans up at each `look`, and thoroughly at each `sweep`.

    Without the right data folder it touches no files, since records would lose theirs.
    """

    def __init__(self, config: WorkerConfig, store: Store, fitness: Fitness, metrics: WorkerMetrics) -> None:
        self._config = config
        self._store = store
        self._fitness = fitness
        self._metrics = metrics

    def look(self) -> None:
        """Settle abandoned jobs, and remove checkpoints of cancelled ones. Raises StoreUnavailable."""
        for job in self._store.leases.settle_abandoned():
            logger.info(
                "Job %s is now %s, because its worker stopped renewing its lease.", job.id, job.status
            )
        if self._fitness.has_its_folder:
            for job in self._store.jobs.list(status=JobStatus.CANCELLED).items:
                self._clean_cancelled(job)

    def sweep(self) -> None:
        """Remove what jobs that have ended need no more, and what the settings let go unless another process does so.

        Raises: StoreUnavailable, OSError.
        """
        if not self._fitness.has_its_folder:
            return
        self.clean()
        sweeper = Sweeper(self._store, self._config.data_dir, self._config.retention)
        if self._config.retention.limits:
            with contextlib.suppress(SweepUnderWay):
                for finding, size_bytes in sweeper.sweep(owner_name(os.getpid(), self._config.queue)):
                    self._metrics.removed(finding.kind, size_bytes)

    def clean(self) -> None:
        """Remove only what belongs to jobs that have ended. Raises StoreUnavailable."""
        if self._config.jobs_dir.is_dir():
            for folder in sorted(self._config.jobs_dir.iterdir()):
                self._clean_job(folder)
        if self._config.versions_dir.is_dir():
            remove_version_leftovers(self._config.versions_dir, is_live=self._is_live)
            for folder in sorted(self._config.versions_dir.iterdir()):
                if is_version(folder.name) and self._is_of_no_use(folder):
                    self._remove_version(folder)
        while self._store.events.prune(self._config.keep_events_s):
            pass

    def _clean_job(self, folder: Path) -> None:
        if folder.name.startswith(REMOVING):
            shutil.rmtree(folder, ignore_errors=True)
            return
        job = self._job(folder.name)
        if job is None:  # it belongs to another database
            return
        if job.status is JobStatus.SUCCEEDED and job.files_removed_at is None:
            self._clean_succeeded(folder, job)
        elif self._ended_long_ago(job) or (job.status in TERMINAL and job.files_removed_at is not None):
            self._remove_job(job)
        elif job.status is JobStatus.CANCELLED:
            self._clean_cancelled(job)

    def _clean_cancelled(self, job: Job) -> None:
        """Keep only the newest whole checkpoint, from which a retry continues."""
        if (self._config.jobs_dir / job.id).is_dir():
            JobFolder(self._config.jobs_dir, Lease.of(job)).keep_newest_checkpoint()

    def _remove_job(self, job: Job) -> None:
        """Remove an ended job's files once they are old enough; at once if they had been removed before."""
        keep_s = self._config.keep_files_s if job.files_removed_at is None else 0.0
        try:
            remove_job_files(self._store, self._config.jobs_dir, job.id, ended_for_s=keep_s)
            logger.info("The files of job %s (%s) were removed.", job.id, job.status)
        except JobStateConflict:  # the job was retried
            pass
        except OSError as error:
            logger.warning("The files of job %s cannot be removed: %s.", job.id, error)

    def _clean_succeeded(self, folder: Path, job: Job) -> None:
        """A job cleans up after itself unless it is killed. Keep only the result files that its row names."""
        if job.result is not None and job.result.get("files"):
            attempt = JobFolder(self._config.jobs_dir, Lease.of(job))
            attempt.drop_earlier()
            attempt.drop()
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _is_of_no_use(self, folder: Path) -> bool:
        """Whether a version was deleted, or never registered by a job that ended long ago.

        Without a record of the version or its job here, it belongs to another database and stays.
        """
        try:
            return self._store.versions.get(folder.name).status is VersionStatus.DELETED
        except UnknownRecord:
            pass
        with contextlib.suppress(VersionError):
            job = self._job(read_manifest(folder).job)
            return job is not None and self._ended_long_ago(job)
        return False

    def _remove_version(self, folder: Path) -> None:
        try:
            if remove_version_files(self._store, folder):
                logger.info("The files of the unused version %s were removed.", folder.name[:12])
        except OSError as error:
            logger.warning("The files of version %s cannot be removed: %s.", folder.name[:12], error)

    def _ended_long_ago(self, job: Job) -> bool:
        if job.status not in TERMINAL or job.finished_at is None:
            return False
        return self._store.now() - job.finished_at >= self._config.keep_files_s

    def _is_live(self, job_id: str, fence: int) -> bool:
        job = self._job(job_id)
        return job is not None and job.fence == fence and job.status in HELD

    def _job(self, job_id: str) -> Job | None:
        with contextlib.suppress(UnknownRecord):
            return self._store.jobs.get(job_id)
        return None
