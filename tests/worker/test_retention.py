"""What is kept of jobs, and for how long."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.jobs.states import JobKind
from app.store import Store
from app.store.records import Job, JobError, Lease
from worker.config import WorkerConfig
from worker.folders import JobFolder
from worker.retention import Retention


def attempt(config: WorkerConfig, store: Store, submit: Callable[..., Job]) -> tuple[Lease, Path]:
    """A claimed job with files, and its folder."""
    submit({})
    job = store.work.claim(JobKind.FINETUNE, "a test", 600)
    assert job is not None
    folder = JobFolder(config.jobs_dir, Lease.of(job))
    for each in (folder.run, folder.work):
        each.mkdir(parents=True)
    (folder.path / "results.json").write_text("{}")
    return Lease.of(job), folder.path


def test_only_what_jobs_that_ended_need_no_more_is_removed(
    config: WorkerConfig, store: Store, submit: Callable[..., Job]
) -> None:
    _, running = attempt(config, store, submit)
    failed_lease, failed = attempt(config, store, submit)
    store.work.fail(failed_lease, JobError("x", "x"))
    evaluated_lease, evaluated = attempt(config, store, submit)
    store.work.succeed(evaluated_lease, result={"files": {"results": "..."}})
    trained_lease, trained = attempt(config, store, submit)
    store.work.succeed(trained_lease)
    config.versions_dir.mkdir()
    dead, live = (config.versions_dir / f".publishing.{job}.1" for job in ("job_0", running.parent.name))
    dead.mkdir()
    live.mkdir()
    Retention(config, store).clean()
    assert sorted(path.name for path in running.iterdir()) == ["results.json", "run", "work"]
    assert sorted(path.name for path in failed.iterdir()) == ["results.json", "run", "work"]
    assert [path.name for path in evaluated.iterdir()] == ["results.json"]
    assert not trained.parent.exists()
    assert (dead.exists(), live.exists()) == (False, True)
    Retention(replace(config, keep_files_s=0.0), store).clean()
    assert not failed.parent.exists()
    assert running.exists()
    assert evaluated.exists()
