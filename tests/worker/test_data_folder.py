"""Workers whose data folder goes away, or is another one from the start."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sds_clip.app.data_folder import ID_FILE, DataFolder, WrongDataFolder
from sds_clip.app.store import Store
from sds_clip.app.store.records import DatasetStatus, Job, NewVersion
from sds_clip.app.store.states import JobStatus
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.context import JobContext
from sds_clip.worker.dataset_checks import check
from sds_clip.worker.errors import Stopped
from sds_clip.worker.fitness import Fitness
from sds_clip.worker.job_process import _attempt
from sds_clip.worker.main import run_worker
from sds_clip.worker.protocol import Exit
from tests.databases import on_both_if_long
from tests.worker.in_process import claimed
from tests.worker.waiting import WorkerProcess, notes, reaper, until, until_status

Submit = Callable[..., Job]


@pytest.fixture
def config(config: WorkerConfig, store: Store) -> WorkerConfig:
    """The folder is the database's, as after a first start."""
    config = replace(config, threads=0)
    DataFolder(store.database, config.data_dir).check()
    return config


def unmounted(config: WorkerConfig) -> WorkerConfig:
    return replace(config, data_dir=config.data_dir.with_name("unmounted"))


def test_worker_with_another_folder_does_not_start_and_changes_nothing(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "count", "steps": 1})
    with pytest.raises(WrongDataFolder, match="Mount the right folder"):
        run_worker(unmounted(config))
    assert store.jobs.get(job.id).status is JobStatus.QUEUED
    assert store.workers.list() == ()
    assert not unmounted(config).data_dir.exists()


@on_both_if_long
def test_job_is_given_back_uncounted_when_the_folder_goes_away_and_goes_on_when_it_is_back(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job, other = submit({"act": "count", "steps": 400}), submit({"act": "count", "steps": 1})
    away = config.data_dir.with_name("away")
    with WorkerProcess(config) as process:
        until(lambda: store.jobs.get(job.id).step > 0)
        config.data_dir.rename(away)
        config.data_dir.mkdir()  # where it was mounted
        until(lambda: store.jobs.get(job.id).status is JobStatus.QUEUED)
        left = store.jobs.get(job.id)
        assert (left.attempt, left.interruptions, left.fence) == (0, 1, 1)
        released = store.events.transitions(job.id)[-1].message
        assert released.startswith("Stopped: The data folder is not the data folder of the database")
        until(lambda: store.workers.list()[0].out_because)
        assert store.workers.living_queues() == frozenset()
        assert [store.jobs.get(each.id).fence for each in (job, other)] == [1, 0]  # it has claimed nothing
        config.data_dir.rename(config.data_dir.with_name("wrong"))
        away.rename(config.data_dir)
        until_status(store, other.id, JobStatus.SUCCEEDED)
        until(lambda: store.workers.list()[0].out_because is None)
        assert process.poll() is None
    assert store.jobs.get(job.id).result == {"counted": 400}
    assert notes(config)[-1] == f"ended {other.id} 1"


def test_job_whose_folder_goes_away_before_its_worker_notices_is_given_back_with_the_reason(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    def runner(context: JobContext) -> None:
        config.data_dir.rename(config.data_dir.with_name("away"))
        (config.data_dir / "jobs" / "lost").read_bytes()

    job = submit({"act": "count"})
    with claimed(config, store) as context:
        assert _attempt(context, lambda kind: runner) is Exit.RELEASED
    released = store.events.transitions(job.id)[-1].message
    assert released.startswith("Stopped: The data folder is not the data folder of the database")
    assert released.endswith(f"its file {ID_FILE}.")


def test_version_whose_files_are_in_another_folder_is_not_registered(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "count"})
    (config.data_dir / ID_FILE).rename(config.data_dir / "moved")
    with claimed(config, store) as context, pytest.raises(Stopped, match="it has no id"):
        context.succeed(version=NewVersion("a" * 64, None, {}, 1))
    assert store.jobs.get(job.id).status is JobStatus.RUNNING
    assert store.versions.list().items == ()


def test_data_set_is_not_rejected_for_files_that_another_folder_lacks(
    config: WorkerConfig, store: Store
) -> None:
    added = store.datasets.add(name="", format="pairs", source={})
    row = store.datasets.claim_check("a test", 60)
    assert row is not None
    with pytest.raises(WrongDataFolder):
        check(unmounted(config), store, row)
    assert store.datasets.get(added.id).status is DatasetStatus.VALIDATING


def test_files_of_ended_jobs_are_not_removed_in_another_folder(
    config: WorkerConfig, store: Store, submit: Submit, tmp_path: Path
) -> None:
    wrong = unmounted(replace(config, keep_files_s=0.0))
    job = submit({"act": "count"})
    store.jobs.request_cancel(job.id)
    (wrong.jobs_dir / job.id).mkdir(parents=True)
    fitness = Fitness(wrong, DataFolder(store.database, wrong.data_dir))
    fitness.look()
    reaper(wrong, store, fitness).sweep()
    assert store.jobs.get(job.id).files_removed_at is None
    right = replace(wrong, data_dir=config.data_dir)
    (right.jobs_dir / job.id).mkdir(parents=True)
    reaper(right, store).sweep()
    assert store.jobs.get(job.id).files_removed_at is not None
