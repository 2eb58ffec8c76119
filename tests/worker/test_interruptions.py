"""Machines and processes that die over and over: what fails a job, and what does not. Whole workers, really killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from sds_clip.app.store import Store
from sds_clip.app.store.records import Job
from sds_clip.app.store.states import TERMINAL, JobStatus
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.folders import occupants
from sds_clip.worker.identity import kill
from tests.databases import on_both_if_long
from tests.worker.waiting import until
from tests.worker.work import Work

pytestmark = on_both_if_long
SHORT_LEASE_S = 6.0


@pytest.fixture
def config(config: WorkerConfig) -> WorkerConfig:
    return replace(config, threads=0, lease_ttl_s=SHORT_LEASE_S)


@contextmanager
def restarted(work: Work, count: int) -> Iterator[Callable[[Random], None]]:
    """Workers, and what kills one of them, drawn at random, and starts another in its place."""
    with ExitStack() as workers:
        running = [workers.enter_context(work.worker()) for _ in range(count)]

        def kill_one(random: Random) -> None:
            number = random.randrange(count)
            running[number].kill()
            running[number].wait()
            running[number] = workers.enter_context(work.worker())

        yield kill_one


@pytest.mark.long
def test_storm_of_faults_fails_no_job(work: Work) -> None:
    """Workers and jobs' processes are killed until every job has taken its steps."""
    random = Random(0)
    jobs = [work.light("count", steps=150, step_s=0.03) for _ in range(4)]
    faults = 0
    killed_at: dict[str, int] = {}
    with restarted(work, 2) as kill_worker:
        while open_jobs := [job for job in jobs if work.get(job).status not in TERMINAL]:
            at_work = [(folder.path.parent.name, found) for folder, found in occupants(work.config.jobs_dir)]
            # A process is killed again once its job has come on: on busy cores it may not have taken a step yet.
            due = [
                (job_id, found)
                for job_id, found in at_work
                if work.store.jobs.get(job_id).furthest_step > killed_at.get(job_id, -1)
            ]
            if faults < 16 and at_work:
                if not due or random.random() < 0.5:
                    kill_worker(random)
                else:
                    job_id, found = random.choice(due)
                    killed_at[job_id] = work.store.jobs.get(job_id).furthest_step
                    kill(found.process)
                faults += 1
            steps = sum(work.get(job).furthest_step for job in open_jobs)
            until(lambda job=open_jobs[0], steps=steps: came_on(work.store, jobs, steps))  # type: ignore[misc]
    assert faults == 16
    for job in jobs:
        ended = work.get(job)
        assert (ended.status, ended.result) == (JobStatus.SUCCEEDED, {"counted": 150}), ended.error


def came_on(store: Store, jobs: list[Job], steps: int) -> bool:
    """Whether some job has taken a step since, or none is left."""
    found = [store.jobs.get(job.id) for job in jobs]
    running = [job for job in found if job.status not in TERMINAL]
    return not running or sum(job.furthest_step for job in running) != steps


@pytest.mark.long
def test_job_that_takes_its_supervisor_down_each_time_fails_for_its_interruptions_and_others_go_on(
    work: Work,
) -> None:
    poison = work.light("take_down_its_machine", max_interruptions=2)
    healthy = work.light("count", steps=3)
    for _ in range(3):
        until(lambda: time.time() > (work.get(poison).lease_until or 0.0))
        with work.worker() as worker:
            assert worker.wait(120) == -signal.SIGKILL
    with work.worker():
        work.until(poison, JobStatus.FAILED)
        work.until(healthy, JobStatus.SUCCEEDED)
    failed = work.get(poison)
    assert (failed.attempt, failed.interruptions) == (1, 3)
    assert work.error(poison).code == "interrupted_too_often"
    assert sum(note.startswith("begun") and poison.id in note for note in work.notes()) == 3


def test_worker_says_that_it_lives_and_what_it_does_until_it_stops(work: Work, database_url: str) -> None:
    job = work.light("count", steps=10**6)
    later = Store(database_url, clock=lambda: time.time() + 31)
    with work.worker() as worker:
        work.until_step(job)
        (seen,) = work.store.workers.list()
        assert (seen.pid, seen.queue, seen.alive, seen.job_id) == (worker.pid, "finetune", True, job.id)
        assert seen.host == os.uname().nodename
        assert work.store.workers.living_queues() == {"finetune": 1, "check": 1}
        worker.kill()
        worker.wait()
        assert later.workers.living_queues() == {}, "it was not seen for more than three heartbeats"
        assert [each.alive for each in later.workers.list()] == [False]
    later.close()
    with work.worker() as worker:
        until(
            lambda: (
                worker.pid in {each.pid for each in work.store.workers.list()} and catches_sigterm(worker.pid)
            )
        )
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(120) == 0
    assert worker.pid not in {each.pid for each in work.store.workers.list()}


def catches_sigterm(pid: int) -> bool:
    """Whether the process is ready to be told to stop."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
