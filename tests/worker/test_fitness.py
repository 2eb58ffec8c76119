"""A worker under which different jobs fail takes itself out, and comes back when it has passed its test."""

import logging
import sys
from dataclasses import replace

import pytest

from sds_clip.app.data_folder import DataFolder
from sds_clip.app.store import Store
from sds_clip.app.store.records import DatasetStatus, Job
from sds_clip.app.store.states import JobStatus
from sds_clip.worker import fitness as of_workers
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.fitness import BEFORE_PAUSE, QUICK_S, Fitness
from tests.databases import on_both_if_long
from tests.worker.waiting import until
from tests.worker.work import Work


@pytest.fixture
def config(config: WorkerConfig) -> WorkerConfig:
    return replace(config, threads=0)


@pytest.fixture
def fitness(config: WorkerConfig, store: Store) -> Fitness:
    config.jobs_dir.mkdir(parents=True)
    return Fitness(config, DataFolder(store.database, config.data_dir))


def fail(fitness: Fitness, *jobs: Job, code: str = "process_died", seconds: float = 1.0) -> None:
    for job in jobs:
        fitness.note(job, "failed", code, seconds)


@pytest.fixture
def jobs(work: Work) -> list[Job]:
    return [work.light("die") for _ in range(BEFORE_PAUSE)]


@on_both_if_long
def test_worker_whose_jobs_die_one_after_the_other_stops_taking_them_and_says_so(
    work: Work, fitness: Fitness, caplog: pytest.LogCaptureFixture
) -> None:
    dying = [work.light("die", max_attempts=1) for _ in range(BEFORE_PAUSE)]
    waiting = work.light("count", steps=1)
    with work.running(fitness=fitness) as slot:
        until(lambda: "begins in 60 s" in (fitness.out_because or ""))
        assert [work.get(job).status for job in dying] == [JobStatus.FAILED] * BEFORE_PAUSE
        assert not slot._look()
        assert work.get(waiting).fence == 0
        own = [each for each in caplog.records if each.name == "sds_clip.worker.fitness"]
        (error,) = (each for each in own if each.levelno == logging.ERROR)
        assert all(job.id in error.getMessage() for job in dying)
        fitness._test_at = 0.0  # the pause is over
        work.until(waiting, JobStatus.SUCCEEDED)


def test_worker_whose_device_is_out_checks_data_sets(work: Work) -> None:
    dying = [work.light("die", max_attempts=1) for _ in range(BEFORE_PAUSE)]
    with work.worker(checks_datasets=True, idle_tick_s=0.2):
        for job in dying:
            work.until(job, JobStatus.FAILED)
        waiting, added = work.light("count", steps=1), work.store.datasets.add(format="pairs", source={})
        until(lambda: work.store.datasets.get(added.id).status is DatasetStatus.READY)
        assert work.get(waiting).fence == 0


def test_message_that_comes_while_the_worker_is_out_goes_back_to_the_queue_once(
    work: Work, fitness: Fitness, jobs: list[Job]
) -> None:
    sent: list[str] = []
    job = work.light("count", steps=1, priority=1)
    fail(fitness, *jobs)

    def publish(_kind: object, job_id: str) -> bool:
        sent.append(job_id)
        if len(sent) == 1:
            fitness._test_at = 0.0  # it is back before another worker has taken the message
        return True

    with work.running(idle_tick_s=3600, publish=publish, fitness=fitness) as slot:
        assert slot.run(job.id) is JobStatus.SUCCEEDED
    assert sent == [job.id]


@pytest.mark.parametrize(
    ("code", "seconds"),
    [
        ("bad_data", 1.0),
        ("nothing_learned", 1.0),
        ("out_of_memory", 1.0),
        ("", 1.0),
        ("process_died", QUICK_S + 1),
    ],
)
def test_errors_of_the_callers_and_late_ones_do_not_count(
    fitness: Fitness, jobs: list[Job], code: str, seconds: float
) -> None:
    fail(fitness, *jobs, code=code, seconds=seconds)
    assert fitness.out_because is None


def test_one_failed_attempt_is_nothing_and_after_a_second_the_worker_tests_itself_before_it_takes_another_job(
    fitness: Fitness, jobs: list[Job]
) -> None:
    fail(fitness, jobs[0])
    assert fitness.out_because is None
    fail(fitness, jobs[0])
    assert "begins at once" in (fitness.out_because or "")
    assert fitness.may_claim()
    assert fitness.out_because is None


def test_one_job_that_fails_again_and_again_makes_no_pause(fitness: Fitness, jobs: list[Job]) -> None:
    fail(fitness, jobs[0], jobs[0], jobs[0], jobs[1])
    assert "begins at once" in (fitness.out_because or "")
    fail(fitness, jobs[2])
    assert "begins in 60 s" in (fitness.out_because or "")


def test_success_begins_the_count_again(fitness: Fitness, jobs: list[Job]) -> None:
    fail(fitness, jobs[0])
    fitness.note(jobs[0], "succeeded", "", 1.0)
    fail(fitness, jobs[1])
    assert fitness.out_because is None


def test_test_is_not_made_before_its_time_and_a_worker_that_is_back_is_on_probation(
    work: Work, fitness: Fitness, jobs: list[Job]
) -> None:
    fail(fitness, *jobs)
    assert not fitness.may_claim()
    fitness._test_at = 0.0
    assert fitness.may_claim()
    fail(fitness, work.light("die"))
    assert "begins in 120 s" in (fitness.out_because or "")


def test_jobs_of_one_key_keep_a_whole_worker_out_for_the_time_of_the_test_alone(
    work: Work, fitness: Fitness
) -> None:
    fail(fitness, *(work.light("die", owner="alice") for _ in range(BEFORE_PAUSE)))
    assert fitness.out_because is not None
    assert fitness.may_claim()


def test_jobs_of_several_keys_keep_it_out_for_the_pause(work: Work, fitness: Fitness) -> None:
    fail(fitness, *(work.light("die", owner=owner) for owner in ("alice", "alice", "bob")))
    assert not fitness.may_claim()


@pytest.mark.parametrize("fault", ["device", "folder"])
def test_worker_whose_device_or_folder_fails_stays_out_and_says_what_fails(
    work: Work, jobs: list[Job], fault: str
) -> None:
    work.config.data_dir.mkdir()
    if fault == "folder":
        work.config.jobs_dir.write_text("no folder")
    else:
        work.config.jobs_dir.mkdir()
        work.config = replace(work.config, device="cuda:7")
    fitness = Fitness(work.config, DataFolder(work.store.database, work.config.data_dir))
    fail(fitness, *jobs)
    fitness._test_at = 0.0
    assert not fitness.may_claim()
    reason = {"device": "The device 'cuda:7' is not available", "folder": "Not a directory"}[fault]
    assert reason in (fitness.out_because or "")
    assert "repeats it in 60 s" in (fitness.out_because or "")


def test_test_that_hangs_is_a_failed_one(
    fitness: Fitness, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_workers, "PYTHON", (sys.executable, "-c", "import time; time.sleep(3600)"))
    monkeypatch.setattr(of_workers, "_TEST_TIMEOUT_S", 0.5)
    fail(fitness, *jobs)
    fitness._test_at = 0.0
    assert not fitness.may_claim()
    assert "failed its test (it took longer than 0.5 s)" in (fitness.out_because or "")
