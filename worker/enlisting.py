"""Submits the jobs that check data sets, once every process knows them (docs/decisions/0091-checks-are-jobs.md)."""

import contextlib
from collections.abc import Callable

from sds_clip.app.registry.source import REPORTS, FileReports
from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.store import Store
from sds_clip.app.store.states import JobKind
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.fitness import Fitness


class Enlisting:
    """Looks for data sets that wait for their check. Every worker does so, and the store lets each have one check."""

    def __init__(
        self, config: WorkerConfig, store: Store, fitness: Fitness, publish: Callable[[JobKind, str], bool]
    ) -> None:
        self._reports = FileReports(config.data_dir / REPORTS, store.now)
        self._store = store
        self._fitness = fitness
        self._publish = publish

    def look(self) -> None:
        """Raises StoreUnavailable, OSError."""
        if not self._fitness.has_its_folder or not self._store.datasets.lack_checks(FORMATS):
            return
        # A service of the release before would fail to read such a job. It reports nothing of its data folder.
        with contextlib.suppress(FileNotFoundError):  # no service has started yet
            if any("data_folder_error" not in report.content for report in self._reports.read()):
                return
        for job in self._store.datasets.enlist_checks(FORMATS):
            if not self._publish(job.kind, job.id):
                return  # slots find jobs by themselves
