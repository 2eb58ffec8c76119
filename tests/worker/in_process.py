"""A job's context without a process of its own: the same code, claimed and told, and no lease to keep."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sds_clip.app.registry.publish import publish
from sds_clip.app.registry.store_source import unpublished_version
from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.store import Store
from sds_clip.app.store.records import Dataset, Job, Lease, NewVersion
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.app.store.verdicts import dataset_of
from sds_clip.models.clip.model import Clip
from sds_clip.worker.check_job import check, checker_of
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.context import JobContext
from sds_clip.worker.folders import JobFolder
from sds_clip.worker.job_process import Runner
from sds_clip.worker.protocol import Ticks
from sds_clip.worker.reporter import Reporter


@contextmanager
def claimed(config: WorkerConfig, store: Store, kind: JobKind = JobKind.FINETUNE) -> Iterator[JobContext]:
    """The oldest job of a kind, claimed, with its folder open."""
    job = store.leases.claim(kind, "this process", 600)
    assert job is not None
    folder = JobFolder(config.jobs_dir, Lease.of(job))
    folder.open()
    reporter = Reporter(store, Lease.of(job), config.report_every_s)
    reporter.start()
    try:
        yield JobContext(config, store, job, folder, reporter, Ticks(None))
    finally:
        reporter.close()


def checked(config: WorkerConfig, store: Store) -> Dataset:
    """The data set whose check's turn it is, once it is checked."""
    store.datasets.enlist_checks(FORMATS)
    with claimed(config, store, JobKind.CHECK) as context:
        dataset = store.datasets.get(dataset_of(context.job))
        check(context, dataset, checker_of(dataset))
    return store.datasets.get(dataset.id)


def run_job(config: WorkerConfig, store: Store, job: Job, runner: Runner) -> Job:
    """The job, claimed as the oldest of its kind and done to its success."""
    with claimed(config, store, job.kind) as context:
        runner(context)
    ended = store.jobs.get(job.id)
    assert ended.status is JobStatus.SUCCEEDED
    return ended


def published(config: WorkerConfig, store: Store, base: Clip, delta: Path) -> str:
    """Publish and register a delta, as a job does; its version."""
    made = publish(delta, config.versions_dir, job="before", fence=1, base=base)
    store.versions.register(unpublished_version(base))
    store.versions.register(
        NewVersion(
            made.version, f"versions/{made.version}", made.description, made.size_bytes, "tiny", base.version
        )
    )
    return made.version
