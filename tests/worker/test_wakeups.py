"""Whole workers behind a real broker, with light jobs: woken, woken too often, and not woken."""

import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from app.jobs.wakeups import WakeUps
from app.store import Store
from app.store.records import Job, NewJob
from app.store.states import JobKind, JobStatus
from tests.databases import on_both
from tests.worker.waiting import WorkerProcess, notes, until, until_status
from worker.config import WorkerConfig
from worker.reaper import Reaper
from worker.valkey import Valkey

Submit = Callable[..., Job]
pytestmark = on_both


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="vk-") as folder, Valkey(Path(folder) / "v") as started:
        yield started


@pytest.fixture
def config(config: WorkerConfig, valkey: Valkey) -> WorkerConfig:
    """Nothing but a wake-up makes this worker look for jobs."""
    return replace(
        config, broker_url=valkey.url, threads=0, idle_tick_s=3600, reap_every_s=3600, keep_warm=True
    )


def ready(config: WorkerConfig, store: Store, submit: Submit) -> None:
    """Wait until the worker has done what it found at its start."""
    first = submit({"act": "count", "steps": 1})
    wake_ups = WakeUps(config.broker_url)
    wake_ups.publish(JobKind.FINETUNE)
    wake_ups.close()
    until_status(store, first.id, JobStatus.SUCCEEDED)
    (config.data_dir / "notes").unlink()


def test_wake_up_delivered_five_times_runs_the_job_once_and_sigterm_lets_one_go(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    wake_ups = WakeUps(config.broker_url)
    with WorkerProcess(config) as worker:
        ready(config, store, submit)
        job = submit({"act": "count", "steps": 20})
        assert all(wake_ups.publish(JobKind.FINETUNE) for _ in range(5))
        until_status(store, job.id, JobStatus.SUCCEEDED)
        long = submit({"act": "count", "steps": 10**6})
        wake_ups.publish(JobKind.FINETUNE)
        until(lambda: store.jobs.get(long.id).step > 20)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert notes(config) == [f"begun {job.id} 1", f"ended {job.id} 1", f"begun {long.id} 1"]
    assert store.jobs.get(long.id).status is JobStatus.QUEUED
    wake_ups.close()


def test_worker_takes_jobs_while_the_broker_is_away_and_wake_ups_when_it_is_back(
    config: WorkerConfig, store: Store, submit: Submit, valkey: Valkey
) -> None:
    wake_ups = WakeUps(config.broker_url)
    impatient = replace(config, idle_tick_s=0.2)
    with WorkerProcess(impatient) as worker:
        ready(config, store, submit)
        valkey.stop()
        job = submit({"act": "count", "steps": 5})
        assert not wake_ups.publish(JobKind.FINETUNE)
        until_status(store, job.id, JobStatus.SUCCEEDED)
        valkey.start()
        assert wake_ups.publish(JobKind.FINETUNE)
        until(lambda: waiting(valkey) == 0)
        assert worker.poll() is None
    wake_ups.close()


def waiting(valkey: Valkey) -> int:
    client = redis.Redis(unix_socket_path=str(valkey.socket))
    length = client.llen("finetune")
    client.close()
    return int(length)  # type: ignore[arg-type]


def test_reaper_wakes_for_a_job_that_waits_ever_more_rarely(database_url: str, config: WorkerConfig) -> None:
    """Stale after more than 4 s, then looked at every second: at 5, and 4, 8, 16, 32 s after each other."""
    clock, woken = Clock(), []
    store = Store(database_url, clock=clock)
    reaper = Reaper(
        replace(config, reap_every_s=4.0), store, lambda kind: woken.append(clock.now), clock=clock
    )
    store.jobs.submit(NewJob(JobKind.EVALUATE, {}, {}))
    for second in range(1, 70):
        clock.now = float(second)
        reaper.look()
    store.close()
    assert woken == [4, 8, 16, 32, 64]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_reaper_settles_jobs_whose_worker_is_gone(config: WorkerConfig, store: Store, submit: Submit) -> None:
    jobs = [submit({"act": "count", "steps": 1}) for _ in range(2)]
    for _ in jobs:
        assert store.work.claim(JobKind.FINETUNE, "gone", -1.0) is not None
    store.jobs.request_pause(jobs[0].id)
    store.jobs.request_cancel(jobs[1].id)
    Reaper(config, store, lambda kind: None).look()
    found = [store.jobs.get(job.id).status for job in jobs]
    assert found == [JobStatus.PAUSED, JobStatus.CANCELLED]
