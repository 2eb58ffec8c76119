"""Faults of processes and of the network between them: deaths, outages and duplicates."""

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from bench.faults.proxy import Outage
from bench.faults.system import STEPS, System
from sds_clip.app.jobs.wakeups import WakeUps
from sds_clip.app.store.states import JobKind
from sds_clip.worker.identity import is_alive, kill
from tests.worker.waiting import end

OUTAGE_S = 10.0


@dataclass(frozen=True)
class Injected:
    """An injected fault: the job it hit, and when it happened or, if it lasted, ended."""

    job: str
    at: float


def submitted(system: System, random: Random, **hyperparameters: Any) -> str:
    """Submit a job with a random seed, so that its version is unique."""
    return system.submit(random.getrandbits(32), **hyperparameters)


def begun(system: System, random: Random) -> str:
    """Submit a job and wait for a random early step."""
    job = submitted(system, random)
    system.until_step(job, random.randint(1, STEPS // 4))
    return job


Injection = Callable[[System, Random], Injected]


def at_point(point: str, visits: int = 1) -> Injection:
    """The process that reaches the point dies there, at a random visit."""

    def inject(system: System, random: Random) -> Injected:
        system.arm(point, random.randint(1, visits))
        job = submitted(system, random)
        return Injected(job, system.until_reached(point))

    return inject


def service_dies_after_commit(system: System, random: Random) -> Injected:
    """The caller gets no answer, and repeats the request with the same key."""
    system.arm("after-commit")
    seed, key = random.getrandbits(32), f"again-{random.getrandbits(64):x}"
    with contextlib.suppress(httpx.TransportError):
        raise AssertionError(f"it answered: {system.submit(seed, key=key)}")
    at = system.until_reached("after-commit")
    system.until(system.service.version)
    return Injected(system.submit(seed, key=key), at)


def trainer_is_killed(system: System, random: Random) -> Injected:
    job = submitted(system, random)
    _, occupant = system.at_work(job)
    time.sleep(random.uniform(0, 1))
    assert kill(occupant.process), "it had ended"
    return Injected(job, time.time())


def worker_is_killed(system: System, random: Random) -> Injected:
    job = submitted(system, random)
    _, occupant = system.at_work(job)
    time.sleep(random.uniform(0, 1))
    assert system.trainer(job), "its job had ended"
    system.worker_of(occupant).send(signal.SIGKILL)
    return Injected(job, time.time())


def service_is_killed(system: System, random: Random) -> Injected:
    job = submitted(system, random)
    time.sleep(random.uniform(0, 2))
    system.service.send(signal.SIGKILL)
    return Injected(job, time.time())


def valkey_is_killed(system: System, random: Random) -> Injected:
    """Around the time that a wake-up is sent."""
    job = submitted(system, random)
    time.sleep(random.uniform(0, 0.5))
    system.kill_valkey()
    return Injected(job, time.time())


def broker_is_wiped(system: System, random: Random) -> Injected:
    job = submitted(system, random)
    system.wipe_broker()
    return Injected(job, time.time())


def broker_is_away(how: Outage) -> Injection:
    """A job is submitted meanwhile."""

    def inject(system: System, random: Random) -> Injected:
        with system.broker.away(how):
            job = submitted(system, random)
            time.sleep(OUTAGE_S)
        return Injected(job, time.time())

    return inject


def database_is_away(how: Outage) -> Injection:
    """A job has begun, and does not end before."""

    def inject(system: System, random: Random) -> Injected:
        job = begun(system, random)
        with system.database_away(how):
            began = time.time()
            time.sleep(OUTAGE_S)
        at, ended_at = time.time(), system.job(job).finished_at
        assert ended_at is None or ended_at > began, "it had ended"
        return Injected(job, at)

    return inject


def zombie_goes_on(system: System, random: Random) -> Injected:
    """A worker and its job are stopped, like a stalled machine, until another attempt has begun."""
    job = begun(system, random)
    _, occupant = system.at_work(job)
    worker, fence = system.worker_of(occupant), system.job(job).fence
    worker.send(signal.SIGSTOP)
    end(occupant.process, signal.SIGSTOP)
    system.until(lambda: system.job(job).fence > fence, "another attempt")
    end(occupant.process, signal.SIGCONT)
    at = time.time()
    system.until(lambda: not is_alive(occupant.process), "the zombie's end")
    worker.send(signal.SIGCONT)
    return Injected(job, at)


def two_workers_race(system: System, random: Random) -> Injected:
    """Both workers are stopped, a job arrives with a wake-up for each, and both continue at once."""
    for worker in system.workers:
        worker.send(signal.SIGSTOP)
    job = submitted(system, random)
    _wake(system, job, 1)
    for worker in system.workers:
        worker.send(signal.SIGCONT)
    return _begun_once(system, job)


def wake_up_comes_five_times(system: System, random: Random) -> Injected:
    """A broker may deliver a message repeatedly."""
    job = submitted(system, random)
    _wake(system, job, 4)
    return _begun_once(system, job)


def _wake(system: System, job: str, times: int) -> None:
    wake_ups = WakeUps(system.broker_url)
    assert all(wake_ups.publish(JobKind.FINETUNE, job) for _ in range(times))
    wake_ups.close()


def _begun_once(system: System, job: str) -> Injected:
    at = time.time()
    system.until(lambda: system.job(job).finished_at, "its end")
    found = system.job(job)
    assert (found.fence, found.attempt) == (1, 1)
    return Injected(job, at)


def worker_sees_another_folder(system: System, random: Random) -> Injected:
    """The data folder of a worker that has a job is unmounted. Another job is submitted meanwhile."""
    job = begun(system, random)
    _, occupant = system.at_work(job)
    worker = system.worker_of(occupant)
    with system.unmounted(worker):
        system.until_out(worker)
        other = submitted(system, random)
        system.until(lambda: system.job(other).finished_at, "the end of a job of the other worker")
        system.until(lambda: system.job(job).finished_at, "the end of the job that was given back")
    at = time.time()
    assert system.job(job).error is None
    assert system.job(other).attempt == 1, "a worker without its folder has taken a job"
    system.until_out(worker, False)
    return Injected(job, at)


def service_sees_another_folder(system: System, random: Random) -> Injected:
    """The data folder of a service is unmounted, and a version is promoted meanwhile."""
    with system.unmounted(system.services[1]):
        job = submitted(system, random)
        system.until(lambda: system.job(job).finished_at, "its end")
        status = system.services[1].get("/models/status")
        assert status is not None
        assert status.json()["processes"][0]["data_folder_error"] is not None
    return Injected(job, time.time())


def device_fails(system: System, random: Random) -> Injected:
    """All that a worker computes fails, and no other is there, until it has taken itself out.

    Then another one does its job. At the end the device is repaired, and its worker restarted.
    """
    worker, other = random.sample(system.workers, 2)
    other.send(signal.SIGSTOP)
    try:
        with system.broken_device(worker):
            job = submitted(system, random)
            system.until_out(worker)
            left = system.job(job)
            assert left.finished_at is None, "the job has used up its attempts"
            # On busy cores, an attempt may take too long to count as one that failed quickly.
            assert left.attempt in (2, 3), f"the worker left after attempt {left.attempt}"
            other.send(signal.SIGCONT)
            at = time.time()
            system.until(lambda: system.job(job).finished_at, "the end of the job")
    finally:
        other.send(signal.SIGCONT)
    before = worker.pid
    worker.send(signal.SIGTERM)
    system.until(lambda: worker.pid != before, "its restart")
    system.until_out(worker, False)
    return Injected(job, at)
