"""How long what jobs leave is kept: files of those that failed or were cancelled, events, half-published versions."""

import logging
import shutil
import time
from pathlib import Path

from app.jobs.states import HELD, TERMINAL, JobStatus
from app.registry.publish import remove_leftovers
from app.store import Store
from app.store.errors import UnknownRecord
from app.store.records import Job, Lease
from worker.config import WorkerConfig
from worker.folders import JobFolder

logger = logging.getLogger(__name__)

EVERY_S = 600.0


class Retention:
    """Looks now and then; removes only what belongs to jobs that have ended."""

    def __init__(self, config: WorkerConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._last = float("-inf")

    def look(self) -> None:
        """Once in ten minutes. Raises StoreUnavailable."""
        now = time.monotonic()
        if now - self._last < EVERY_S:
            return
        self._last = now
        self.clean()

    def clean(self) -> None:
        """Now. Raises StoreUnavailable."""
        if self._config.jobs_dir.is_dir():
            for folder in sorted(self._config.jobs_dir.iterdir()):
                self._clean_job(folder)
        if self._config.versions_dir.is_dir():
            remove_leftovers(self._config.versions_dir, is_live=self._is_live)
        while self._store.journal.prune(self._config.keep_events_s):
            pass

    def _clean_job(self, folder: Path) -> None:
        try:
            job = self._store.jobs.get(folder.name)
        except UnknownRecord:
            return  # not one of ours
        if job.status not in TERMINAL or job.finished_at is None:
            return
        if job.status is JobStatus.SUCCEEDED:
            self._clean_succeeded(folder, job)
        elif time.time() - job.finished_at >= self._config.keep_files_s:
            logger.info("the files of job %s, which is %s, are removed", job.id, job.status)
            shutil.rmtree(folder, ignore_errors=True)

    def _clean_succeeded(self, folder: Path, job: Job) -> None:
        """What it has made is a version, or results that its row names; the rest it removes itself, if not killed."""
        if job.result is not None and job.result.get("files"):
            attempt = JobFolder(self._config.jobs_dir, Lease.of(job))
            attempt.drop_earlier()
            attempt.drop()
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _is_live(self, job_id: str, fence: int) -> bool:
        try:
            job = self._store.jobs.get(job_id)
        except UnknownRecord:
            return False
        return job.fence == fence and job.status in HELD
