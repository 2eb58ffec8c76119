"""A job's context without a process of its own: the same code, claimed and told, and no lease to keep."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.jobs.states import JobKind
from app.store import Store
from app.store.records import Lease
from worker.config import WorkerConfig
from worker.context import JobContext, Ticks
from worker.folders import JobFolder
from worker.reporter import Reporter


@contextmanager
def claimed(config: WorkerConfig, store: Store, kind: JobKind = JobKind.FINETUNE) -> Iterator[JobContext]:
    """The oldest job of a kind, claimed, with its folder open."""
    job = store.work.claim(kind, "this process", 600)
    assert job is not None
    folder = JobFolder(config.jobs_dir, Lease.of(job))
    folder.open()
    reporter = Reporter(store, Lease.of(job), config.report_every_s)
    reporter.start()
    try:
        yield JobContext(config, store, job, folder, reporter, Ticks(None))
    finally:
        reporter.close()
