"""Periodic cleanup: jobs whose worker is gone, old job files and events, unused versions, what the settings let go.

Every worker runs it. Several at once are harmless, since the store decides. Only one at a time sweeps.
"""

import contextlib
import logging
import os
import shutil
import time
from pathlib import Path

from sds_clip.app.errors import JobStateConflict, UnknownRecord
from sds_clip.app.jobs.removal import remove_job_files
from sds_clip.app.registry.manifest import VersionError, read_manifest
from sds_clip.app.registry.removal import remove_files, remove_leftovers
from sds_clip.app.removal import REMOVING
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

EVERY_S = 600.0  # between full cleanups


class Reaper:
    """One cleanup at each `look`."""

    def __init__(self, config: WorkerConfig, store: Store, fitness: Fitness) -> None:
        self._store = store
        self._retention = Retention(config, store)
        self._fitness = fitness

    def look(self) -> None:
        """Clean up once. Raises StoreUnavailable."""
        for job in self._store.reaper.settle_abandoned():
            logger.info(
                "Job %s is now %s, because its worker stopped renewing its lease.", job.id, job.status
            )
        # In another folder, records would lose their files.
        if self._fitness.has_its_folder:
            self._retention.look()


class Sweep:
    """Removes what the settings of retention let go at each `look`, unless another process is doing so."""

    def __init__(self, config: WorkerConfig, store: Store, metrics: WorkerMetrics, fitness: Fitness) -> None:
        self._sweeper = Sweeper(store, config.data_dir, config.retention)
        self._owner = owner_name(os.getpid(), config.queue)
        self._metrics = metrics
        self._fitness = fitness

    def look(self) -> None:
        """Sweep once. Raises StoreUnavailable, OSError."""
        if not self._fitness.has_its_folder:
            return
        with contextlib.suppress(SweepUnderWay):
            for removed in self._sweeper.sweep(self._owner):
                self._metrics.removed(removed.finding.kind, removed.size_bytes)


class Retention:
    """Removes only what belongs to jobs that have ended."""

    def __init__(self, config: WorkerConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._last = float("-inf")

    def look(self) -> None:
        """Clean up cancelled jobs at each call, everything else every `EVERY_S`. Raises StoreUnavailable."""
        for job in self._store.jobs.list(status=JobStatus.CANCELLED).items:
            self._clean_cancelled(job)
        now = time.monotonic()
        if now - self._last < EVERY_S:
            return
        self._last = now
        self.clean()

    def clean(self) -> None:
        """Clean up everything now. Raises StoreUnavailable."""
        if self._config.jobs_dir.is_dir():
            for folder in sorted(self._config.jobs_dir.iterdir()):
                self._clean_job(folder)
        if self._config.versions_dir.is_dir():
            remove_leftovers(self._config.versions_dir, is_live=self._is_live)
            for folder in sorted(self._config.versions_dir.iterdir()):
                if is_version(folder.name) and self._is_of_no_use(folder):
                    self._remove_version(folder)
        while self._store.events.prune(self._config.keep_events_s):
            pass

    def _clean_job(self, folder: Path) -> None:
        if folder.name.startswith(REMOVING):
            shutil.rmtree(folder, ignore_errors=True)
            return
        try:
            job = self._store.jobs.get(folder.name)
        except UnknownRecord:
            return  # it belongs to another database
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
        with contextlib.suppress(JobStateConflict):  # the job was retried
            try:
                remove_job_files(self._store, self._config.jobs_dir, job.id, ended_for_s=keep_s)
                logger.info("The files of job %s (%s) were removed.", job.id, job.status)
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
        try:
            return self._ended_long_ago(self._store.jobs.get(read_manifest(folder).job))
        except (UnknownRecord, VersionError):
            return False

    def _remove_version(self, folder: Path) -> None:
        try:
            if remove_files(self._store, folder):
                logger.info("The files of the unused version %s were removed.", folder.name[:12])
        except OSError as error:
            logger.warning("The files of version %s cannot be removed: %s.", folder.name[:12], error)

    def _ended_long_ago(self, job: Job) -> bool:
        if job.status not in TERMINAL or job.finished_at is None:
            return False
        return self._store.now() - job.finished_at >= self._config.keep_files_s

    def _is_live(self, job_id: str, fence: int) -> bool:
        try:
            job = self._store.jobs.get(job_id)
        except UnknownRecord:
            return False
        return job.fence == fence and job.status in HELD
