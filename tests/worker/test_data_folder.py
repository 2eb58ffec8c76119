"""Workers whose data folder goes away, or is another one from the start."""

from dataclasses import replace
from pathlib import Path

import pytest

from sds_clip.app.data_folder import ID_FILE, DataFolder, WrongDataFolder
from sds_clip.app.store import Store
from sds_clip.app.store.records import DatasetStatus, NewVersion
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.context import JobContext
from sds_clip.worker.errors import Stopped
from sds_clip.worker.fitness import Fitness
from sds_clip.worker.job_process import _attempt
from sds_clip.worker.main import run_worker
from sds_clip.worker.protocol import Exit
from tests.databases import on_both_if_long
from tests.worker import in_process
from tests.worker.waiting import reaper, until
from tests.worker.work import Work


@pytest.fixture
def config(config: WorkerConfig, store: Store) -> WorkerConfig:
    """The folder is the database's, as after a first start."""
    config = replace(config, threads=0)
    DataFolder(store.database, config.data_dir).check()
    return config


def unmounted(config: WorkerConfig) -> WorkerConfig:
    return replace(config, data_dir=config.data_dir.with_name("unmounted"))


def test_worker_with_another_folder_does_not_start_and_changes_nothing(work: Work) -> None:
    job = work.light("count", steps=1)
    with pytest.raises(WrongDataFolder, match="Mount the right folder"):
        run_worker(unmounted(work.config))
    assert work.get(job).status is JobStatus.QUEUED
    assert work.store.workers.list() == ()
    assert not unmounted(work.config).data_dir.exists()


@on_both_if_long
def test_job_is_given_back_uncounted_when_the_folder_goes_away_and_goes_on_when_it_is_back(
    work: Work,
) -> None:
    job, other = work.light("count", steps=400), work.light("count", steps=1)
    away = work.config.data_dir.with_name("away")
    with work.worker() as process:
        work.until_step(job)
        work.config.data_dir.rename(away)
        work.config.data_dir.mkdir()  # where it was mounted
        work.until(job, JobStatus.QUEUED)
        left = work.get(job)
        assert (left.attempt, left.interruptions, left.fence) == (0, 1, 1)
        released = work.store.events.transitions(job.id)[-1].message
        assert released.startswith("Stopped: The data folder is not the data folder of the database")
        until(lambda: work.store.workers.list()[0].out_because)
        assert JobKind.FINETUNE not in work.store.workers.living_queues()
        assert [work.get(each).fence for each in (job, other)] == [1, 0]  # it has claimed nothing
        work.config.data_dir.rename(work.config.data_dir.with_name("wrong"))
        away.rename(work.config.data_dir)
        work.until(other, JobStatus.SUCCEEDED)
        until(lambda: work.store.workers.list()[0].out_because is None)
        assert process.poll() is None
    assert work.get(job).result == {"counted": 400}
    assert work.notes()[-1] == f"ended {other.id} 1"


def test_job_whose_folder_goes_away_before_its_worker_notices_is_given_back_with_the_reason(
    work: Work,
) -> None:
    def runner(context: JobContext) -> None:
        work.config.data_dir.rename(work.config.data_dir.with_name("away"))
        (work.config.data_dir / "jobs" / "lost").read_bytes()

    job = work.light("count")
    with work.claimed() as context:
        assert _attempt(context, lambda kind: runner) is Exit.RELEASED
    released = work.store.events.transitions(job.id)[-1].message
    assert released.startswith("Stopped: The data folder is not the data folder of the database")
    assert released.endswith(f"its file {ID_FILE}.")


def test_version_whose_files_are_in_another_folder_is_not_registered(work: Work) -> None:
    job = work.light("count")
    (work.config.data_dir / ID_FILE).rename(work.config.data_dir / "moved")
    with work.claimed() as context, pytest.raises(Stopped, match="it has no id"):
        context.succeed(version=NewVersion("a" * 64, None, {}, 1))
    assert work.get(job).status is JobStatus.RUNNING
    assert work.store.versions.list().items == ()


def test_data_set_is_not_rejected_for_files_that_another_folder_lacks(work: Work) -> None:
    added = work.store.datasets.add(name="", format="pairs", source={})
    with pytest.raises(Stopped, match="it has no id"):
        in_process.checked(unmounted(work.config), work.store)
    assert work.store.datasets.get(added.id).status is DatasetStatus.VALIDATING


def test_files_of_ended_jobs_are_not_removed_in_another_folder(work: Work, tmp_path: Path) -> None:
    wrong = unmounted(replace(work.config, keep_files_s=0.0))
    job = work.light("count")
    work.store.jobs.request_cancel(job.id)
    (wrong.jobs_dir / job.id).mkdir(parents=True)
    fitness = Fitness(wrong, DataFolder(work.store.database, wrong.data_dir))
    fitness.look()
    reaper(wrong, work.store, fitness).sweep()
    assert work.get(job).files_removed_at is None
    right = replace(wrong, data_dir=work.config.data_dir)
    (right.jobs_dir / job.id).mkdir(parents=True)
    reaper(right, work.store).sweep()
    assert work.get(job).files_removed_at is not None
