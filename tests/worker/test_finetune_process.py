"""Fine-tuning jobs in processes of their own, as they are run: whole, killed, stopped, orphaned, overtaken."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sds_clip.app.registry.publish import read_published
from sds_clip.app.removal import remove_job_files
from sds_clip.app.store import Store
from sds_clip.app.store.records import Event, Job
from sds_clip.app.store.states import JobStatus
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.identity import is_alive
from tests.databases import held
from tests.disks import small_disk
from tests.worker.waiting import Running, WorkerProcess, end, job_process, until, until_status

STEPS = 40

Submit = Callable[..., Job]


@pytest.fixture
def finetune_config(finetune_config: dict[str, object]) -> dict[str, object]:
    return finetune_config | {"steps": STEPS, "save_every": 4}


def succeeded(store: Store, job: Job) -> Job:
    until_status(store, job.id, JobStatus.SUCCEEDED)
    return store.jobs.get(job.id)


def steps_done(store: Store, job: Job, fence: int = 1) -> int:
    found = store.jobs.get(job.id)
    return found.step if found.fence == fence and found.stage == "training" else 0


@pytest.mark.long
def test_job_runs_to_a_version_and_interrupted_ones_end_with_the_same(
    config: WorkerConfig, store: Store, finetune_config: dict[str, object], submit: Submit
) -> None:
    """Whole; killed at a step; stopped with its worker at a step. One slot a time, as at a restart."""
    whole, killed = (submit(finetune_config) for _ in range(2))
    with Running(config, store):
        version = succeeded(store, whole).result_version
        until(lambda: steps_done(store, killed) >= 8)
        end(job_process(config))
        assert succeeded(store, killed).result_version == version
        stopped = submit(finetune_config)
        until(lambda: steps_done(store, stopped) >= 6)
    left = store.jobs.get(stopped.id)
    assert (left.status, left.attempt) == (JobStatus.QUEUED, 0)
    with Running(config, store):
        assert succeeded(store, stopped).result_version == version
    assert store.jobs.get(killed.id).fence == 2
    assert [each.id for each in store.versions.list().items if each.folder] == [version]
    resumed = [
        event.data["step"]
        for job in (killed, stopped)
        for event in store.events.events(job.id)
        if resumes(event) and event.data
    ]
    assert len(resumed) == 2
    assert all(step >= 4 for step in resumed)
    check_version(config, store, str(version))


@pytest.mark.long
def test_disk_that_is_full_at_a_checkpoint_pauses_the_job_and_it_ends_with_the_same_weights(
    config: WorkerConfig, store: Store, finetune_config: dict[str, object], submit: Submit
) -> None:
    """The system allows the job's process no larger file than some bytes, as a full disk would."""
    asked = finetune_config | {"trainable": "all"}
    whole, job = submit(asked), submit(asked)
    with Running(config, store):
        version = succeeded(store, whole).result_version
        until(lambda: steps_done(store, job) >= 8)
        resource.prlimit(job_process(config).pid, resource.RLIMIT_FSIZE, (2**20, 2**20))
        until_status(store, job.id, JobStatus.PAUSED)
        reason = store.jobs.get(job.id).pause_reason
        assert reason is not None
        assert reason.code == "storage_full"
        store.jobs.request_resume(job.id)
        assert succeeded(store, job).result_version == version
    resumed = [event for event in store.events.events(job.id) if resumes(event)]
    assert [event.data["step"] >= 4 for event in resumed if event.data] == [True]


@pytest.mark.long
def test_disk_that_is_full_at_the_publishing_pauses_the_job_and_its_version_is_published_later(
    config: WorkerConfig, store: Store, finetune_config: dict[str, object], submit: Submit
) -> None:
    """Versions have a disk of their own, which is too small for this one."""
    job = submit(finetune_config | {"trainable": "all"})
    with small_disk(config.versions_dir, "1m") as disk, Running(config, store):
        until_status(store, job.id, JobStatus.PAUSED)
        reason = store.jobs.get(job.id).pause_reason
        assert reason is not None
        assert reason.code == "storage_full"
        assert list(config.versions_dir.iterdir()) == []
        disk.grow("64m")
        store.jobs.request_resume(job.id)
        version = str(succeeded(store, job).result_version)
        until(lambda: not unpublished(config))
        check_version(config, store, version)
    resumed = [event.data["step"] for event in store.events.events(job.id) if resumes(event) and event.data]
    assert resumed == [STEPS]


def unpublished(config: WorkerConfig) -> list[Path]:
    """What the jobs have left beside their reports."""
    return [path for path in config.jobs_dir.glob("*/*/*") if path.name != "report.html"]


def check_version(config: WorkerConfig, store: Store, version_id: str) -> None:
    """It is what was published, names its data by their ids, and nothing else is left of the jobs."""
    version = store.versions.get(version_id)
    published = read_published(config.data_dir / str(version.folder), version_id)
    assert version.size_bytes == published.size_bytes
    assert str(config.data_dir) not in str(version.description)
    assert store.versions.get(str(version.base_version)).folder is None
    assert not unpublished(config)
    assert [folder.name for folder in config.versions_dir.iterdir()] == [version_id]


@pytest.mark.long
def test_job_that_comes_on_survives_any_number_of_kills(
    config: WorkerConfig, store: Store, finetune_config: dict[str, object], submit: Submit
) -> None:
    job = submit(finetune_config | {"steps": 5 * STEPS})
    with Running(config, store):
        for fence in range(1, 5):  # one more than a job that does not come on is allowed
            furthest = store.jobs.get(job.id).furthest_step
            until(lambda fence=fence, furthest=furthest: steps_done(store, job, fence) >= furthest + 8)
            end(job_process(config, fence))
        ended = succeeded(store, job)
    assert (ended.fence, ended.attempt, ended.interruptions) == (5, 1, 0)


def test_job_of_a_killed_worker_ends_with_it_and_is_taken_over_after_its_lease(
    config: WorkerConfig, store: Store, finetune_config: dict[str, object], submit: Submit
) -> None:
    short = replace(config, lease_ttl_s=6.0)
    job = submit(finetune_config | {"steps": 10_000, "save_every": 2})
    with WorkerProcess(short, "tests.worker.real_worker") as worker:
        until(lambda: steps_done(store, job) >= 4)
        orphan = job_process(config)
        worker.kill()
        until(lambda: not is_alive(orphan))
        left = store.jobs.get(job.id)
        assert (left.status, left.fence) == (JobStatus.RUNNING, 1)
    with WorkerProcess(short, "tests.worker.real_worker") as worker:
        until(lambda: steps_done(store, job, fence=2) >= 4)
        job_folder = config.jobs_dir / job.id
        until(lambda: [folder.name for folder in job_folder.iterdir()] == ["2"])
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    released = store.jobs.get(job.id)
    assert (released.status, released.attempt, released.interruptions) == (JobStatus.QUEUED, 0, 2)


@pytest.mark.long
def test_cancelled_job_that_is_retried_goes_on_from_its_checkpoint(
    config: WorkerConfig, store: Store, finetune_config: dict[str, object], submit: Submit
) -> None:
    """It ends with the weights of one that was never stopped; without its files it starts from the beginning."""
    whole, cancelled = submit(finetune_config), submit(finetune_config)
    with Running(config, store):
        version = succeeded(store, whole).result_version
        until(lambda: steps_done(store, cancelled) >= 8)
        store.jobs.request_cancel(cancelled.id)
        until_status(store, cancelled.id, JobStatus.CANCELLED)
        store.jobs.request_retry(cancelled.id)
        assert succeeded(store, cancelled).result_version == version
        steps = [event.data["step"] for event in store.events.events(cancelled.id) if resumes(event)]
        assert len(steps) == 1
        assert steps[0] >= 8
        deleted = submit(finetune_config)
        until(lambda: steps_done(store, deleted) >= 8)
        store.jobs.request_cancel(deleted.id)
        until_status(store, deleted.id, JobStatus.CANCELLED)
        remove_job_files(store, config.jobs_dir, deleted.id)
        assert not (config.jobs_dir / deleted.id).exists()
        store.jobs.request_retry(deleted.id)
        assert succeeded(store, deleted).result_version == version
        steps = [event.data["step"] for event in store.events.events(deleted.id) if resumes(event)]
        assert steps == [0]
        assert store.versions.get(str(version)).job_id == whole.id


def resumes(event: Event) -> bool:
    """Whether it says where another attempt goes on."""
    return event.data is not None and set(event.data) == {"step"}


def stop_between_writes(config: WorkerConfig, processes: Sequence[int]) -> None:
    """Stop processes, and not within a transaction of theirs: what it holds is locked until they wake."""
    while True:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        with contextlib.suppress(TimeoutError), held(config.database_url, timeout_s=0.5):
            return
        for process in processes:
            os.kill(process, signal.SIGCONT)
        time.sleep(0.05)


@pytest.mark.long
def test_training_that_was_stopped_past_its_lease_changes_nothing_when_it_wakes(
    config: WorkerConfig, store: Store, finetune_config: dict[str, object], submit: Submit
) -> None:
    """With its supervisor, as when a machine stalls; a second one takes the job over."""
    short = replace(config, lease_ttl_s=6.0)
    job = submit(finetune_config | {"steps": 10_000, "save_every": 2})
    with WorkerProcess(short, "tests.worker.real_worker") as stalled:
        until(lambda: steps_done(store, job) >= 4)
        zombie = job_process(config)
        stop_between_writes(config, [stalled.pid, zombie.pid])
        with Running(short, store):
            until(lambda: steps_done(store, job, fence=2) >= 4)
            os.kill(zombie.pid, signal.SIGCONT)
            until(lambda: not is_alive(zombie))
            assert steps_done(store, job, fence=2) >= 4
            store.jobs.request_cancel(job.id)
            until_status(store, job.id, JobStatus.CANCELLED)
    assert store.jobs.get(job.id).fence == 2
    assert store.versions.list().items == ()
