"""Processes that die: at a point of a job's way, or at any time."""

import contextlib
import signal
import time
from collections.abc import Callable
from random import Random

import httpx

from app.crash import Point
from tests.faults.injected import Injected, submitted
from tests.faults.system import System
from worker.identity import kill


def at_point(point: Point, visits: int = 1) -> Callable[[System, Random], Injected]:
    """Whoever comes to the point dies there, at a visit drawn at random."""

    def inject(system: System, random: Random) -> Injected:
        system.arm(point, random.randint(1, visits))
        job = submitted(system, random)
        return Injected(job, system.until_reached(point))

    return inject


def service_dies_after_commit(system: System, random: Random) -> Injected:
    """Its caller hears nothing, and asks again with the same key."""
    system.arm("after-commit")
    seed, key = random.getrandbits(32), f"again-{random.getrandbits(64):x}"
    with contextlib.suppress(httpx.TransportError):
        raise AssertionError(f"it answered: {system.submit(seed, key=key)}")
    at = system.until_reached("after-commit")
    system.until(system.answers)
    return Injected(system.submit(seed, key=key), at)


def trainer_is_killed(system: System, random: Random) -> Injected:
    """Between its start and its end."""
    job = submitted(system, random)
    _, occupant = system.at_work(job)
    time.sleep(random.uniform(0, 1))
    assert kill(occupant.process), "it had ended"
    return Injected(job, time.time())


def worker_is_killed(system: System, random: Random) -> Injected:
    """With a job at work."""
    job = submitted(system, random)
    _, occupant = system.at_work(job)
    time.sleep(random.uniform(0, 1))
    assert system.trainer(job), "its job had ended"
    system.worker_of(occupant).send(signal.SIGKILL)
    return Injected(job, time.time())


def service_is_killed(system: System, random: Random) -> Injected:
    """With a job on its way."""
    job = submitted(system, random)
    time.sleep(random.uniform(0, 2))
    system.service.send(signal.SIGKILL)
    return Injected(job, time.time())


def valkey_is_killed(system: System, random: Random) -> Injected:
    """Around the time that a wake-up is on its way."""
    job = submitted(system, random)
    time.sleep(random.uniform(0, 0.5))
    system.kill_valkey()
    return Injected(job, time.time())
