"""Submits the jobs that check data sets, once every process knows them (docs/decisions/0091-checks-are-jobs.md)."""

import contextlib
from collections.abc import Callable

from sds_clip.app.registry.source import REPORTS, FileReports
from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.store import Store
from sds_clip.app.store.states import JobKind
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.fitness import Fitness


def enlist(
    config: WorkerConfig, store: Store, fitness: Fitness, publish: Callable[[JobKind, str], bool]
) -> None:
    """Look for data sets that wait for their check. Every worker does so, and the store lets each have one check.

    Raises StoreUnavailable, OSError.
    """
    if not fitness.has_its_folder or not store.datasets.lack_checks(FORMATS):
        return
    # A service of the release before would fail to read such a job. It reports nothing of its data folder.
    with contextlib.suppress(FileNotFoundError):  # no service has started yet
        reports = FileReports(config.data_dir / REPORTS, store.now).read()
        if any("data_folder_error" not in report.content for report in reports):
            return
    for job in store.datasets.enlist_checks(FORMATS):
        if not publish(job.kind, job.id):
            return  # slots find jobs by themselves
