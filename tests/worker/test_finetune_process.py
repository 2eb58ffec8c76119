"""Fine-tuning jobs in processes of their own, as they are run: whole, killed, stopped, orphaned, overtaken."""

import resource
import signal
from pathlib import Path

import pytest

from sds_clip.app.registry.publish import read_published
from sds_clip.app.removal import remove_job_files
from sds_clip.app.store.records import Job
from sds_clip.app.store.states import JobStatus
from sds_clip.worker.identity import is_alive
from tests.disks import small_disk
from tests.worker.waiting import end, until
from tests.worker.work import Asked, Work

STEPS = 40


@pytest.fixture
def tuning(tuning: Asked) -> Asked:
    return tuning | {"steps": STEPS, "save_every": 4}


def succeeded(work: Work, job: Job) -> Job:
    work.until(job, JobStatus.SUCCEEDED)
    return work.get(job)


@pytest.mark.long
def test_job_runs_to_a_version_and_interrupted_ones_end_with_the_same(work: Work, tuning: Asked) -> None:
    """Whole; killed at a step; stopped with its worker at a step. One slot a time, as at a restart."""
    whole, killed = (work.submit(tuning) for _ in range(2))
    with work.slot():
        version = succeeded(work, whole).result_version
        work.until_trained(killed, 8)
        end(work.process())
        assert succeeded(work, killed).result_version == version
        stopped = work.submit(tuning)
        work.until_trained(stopped, 6)
    left = work.get(stopped)
    assert (left.status, left.attempt) == (JobStatus.QUEUED, 0)
    with work.slot():
        assert succeeded(work, stopped).result_version == version
    assert work.get(killed).fence == 2
    assert [each.id for each in work.store.versions.list().items if each.folder] == [version]
    resumed = work.resumed(killed) + work.resumed(stopped)
    assert [step >= 4 for step in resumed] == [True, True]
    check_version(work, str(version))


@pytest.mark.long
def test_disk_that_is_full_at_a_checkpoint_pauses_the_job_and_it_ends_with_the_same_weights(
    work: Work, tuning: Asked
) -> None:
    """The system allows the job's process no larger file than some bytes, as a full disk would."""
    asked = tuning | {"trainable": "all"}
    whole, job = work.submit(asked), work.submit(asked)
    with work.slot():
        version = succeeded(work, whole).result_version
        work.until_trained(job, 8)
        resource.prlimit(work.process().pid, resource.RLIMIT_FSIZE, (2**20, 2**20))
        work.until(job, JobStatus.PAUSED)
        assert work.pause_reason(job).code == "storage_full"
        work.store.jobs.request_resume(job.id)
        assert succeeded(work, job).result_version == version
    assert [step >= 4 for step in work.resumed(job)] == [True]


@pytest.mark.long
def test_disk_that_is_full_at_the_publishing_pauses_the_job_and_its_version_is_published_later(
    work: Work, tuning: Asked
) -> None:
    """Versions have a disk of their own, which is too small for this one."""
    job = work.submit(tuning | {"trainable": "all"})
    with small_disk(work.config.versions_dir, "1m") as disk, work.slot():
        work.until(job, JobStatus.PAUSED)
        assert work.pause_reason(job).code == "storage_full"
        assert list(work.config.versions_dir.iterdir()) == []
        disk.grow("64m")
        work.store.jobs.request_resume(job.id)
        version = str(succeeded(work, job).result_version)
        until(lambda: not unpublished(work))
        check_version(work, version)
    assert work.resumed(job) == [STEPS]


def unpublished(work: Work) -> list[Path]:
    """What the jobs have left beside their reports."""
    return [path for path in work.config.jobs_dir.glob("*/*/*") if path.name != "report.html"]


def check_version(work: Work, version_id: str) -> None:
    """It is what was published, names its data by their ids, and nothing else is left of the jobs."""
    version = work.store.versions.get(version_id)
    published = read_published(work.config.data_dir / str(version.folder), version_id)
    assert version.size_bytes == published.size_bytes
    assert str(work.config.data_dir) not in str(version.description)
    assert work.store.versions.get(str(version.base_version)).folder is None
    assert not unpublished(work)
    assert [folder.name for folder in work.config.versions_dir.iterdir()] == [version_id]


def test_job_of_a_killed_worker_ends_with_it_and_is_taken_over_after_its_lease(
    work: Work, tuning: Asked
) -> None:
    job = work.submit(tuning | {"steps": 10_000, "save_every": 2})
    with work.worker("tests.worker.real_worker", lease_ttl_s=6.0) as worker:
        work.until_trained(job, 4)
        orphan = work.process()
        worker.kill()
        until(lambda: not is_alive(orphan))
        left = work.get(job)
        assert (left.status, left.fence) == (JobStatus.RUNNING, 1)
    with work.worker("tests.worker.real_worker", lease_ttl_s=6.0) as worker:
        work.until_trained(job, 4, fence=2)
        job_folder = work.config.jobs_dir / job.id
        until(lambda: [folder.name for folder in job_folder.iterdir()] == ["2"])
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    released = work.get(job)
    assert (released.status, released.attempt, released.interruptions) == (JobStatus.QUEUED, 0, 2)


@pytest.mark.long
def test_cancelled_job_that_is_retried_goes_on_from_its_checkpoint(work: Work, tuning: Asked) -> None:
    """It ends with the weights of one that was never stopped; without its files it starts from the beginning."""
    whole, cancelled = work.submit(tuning), work.submit(tuning)
    with work.slot():
        version = succeeded(work, whole).result_version
        work.until_trained(cancelled, 8)
        work.store.jobs.request_cancel(cancelled.id)
        work.until(cancelled, JobStatus.CANCELLED)
        work.store.jobs.request_retry(cancelled.id)
        assert succeeded(work, cancelled).result_version == version
        assert [step >= 8 for step in work.resumed(cancelled)] == [True]
        deleted = work.submit(tuning)
        work.until_trained(deleted, 8)
        work.store.jobs.request_cancel(deleted.id)
        work.until(deleted, JobStatus.CANCELLED)
        remove_job_files(work.store, work.config.jobs_dir, deleted.id)
        assert not (work.config.jobs_dir / deleted.id).exists()
        work.store.jobs.request_retry(deleted.id)
        assert succeeded(work, deleted).result_version == version
        assert work.resumed(deleted) == [0]
        assert work.store.versions.get(str(version)).job_id == whole.id
