"""Two that want the same job, and one that does not know that it has lost it."""

import signal
import time
from random import Random

from app.jobs.wakeups import WakeUps
from app.store.states import JobKind
from tests.faults.injected import Injected, begun, submitted
from tests.faults.system import System
from tests.worker.waiting import end
from worker.identity import is_alive


def zombie_goes_on(system: System, random: Random) -> Injected:
    """A worker and its job are stopped, as when a machine stalls, until another has the job."""
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
    """Both are stopped, a job comes with a wake-up for each, and both go on at once."""
    for worker in system.workers:
        worker.send(signal.SIGSTOP)
    job = submitted(system, random)
    _wake(system, 1)
    for worker in system.workers:
        worker.send(signal.SIGCONT)
    return _begun_once(system, job)


def wake_up_comes_five_times(system: System, random: Random) -> Injected:
    """As a broker may deliver it."""
    job = submitted(system, random)
    _wake(system, 4)
    return _begun_once(system, job)


def _wake(system: System, times: int) -> None:
    wake_ups = WakeUps(system.broker_url)
    assert all(wake_ups.publish(JobKind.FINETUNE) for _ in range(times))
    wake_ups.close()


def _begun_once(system: System, job: str) -> Injected:
    at = time.time()
    system.until(lambda: system.job(job).finished_at, "its end")
    found = system.job(job)
    assert (found.fence, found.attempt) == (1, 1)
    return Injected(job, at)
