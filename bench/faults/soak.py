"""Soak test with faults over many jobs: `python -m bench.faults.soak`, on PostgreSQL and Valkey.

Forty jobs arrive one after another. Meanwhile processes are killed or stopped, the network to the database
and the broker is cut or stalled, the broker loses its data, a disk is full, a checkpoint is damaged. A
process that died is restarted, as an operator's supervisor does, and a job paused by a full disk is resumed.
At the end every job must have succeeded exactly once, and everything checked by `bench.faults.checks` must
hold.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx

from bench import report
from bench.faults.checks import Findings, check
from bench.faults.storage import corrupt, fill_disk_of
from bench.faults.system import System, make_inputs, running_system, work_dir
from bench.options import option, parse
from bench.servers import ended_by_sigterm
from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.store.states import JobStatus
from sds_clip.worker.folders import JobFolder, Occupant, occupants
from sds_clip.worker.identity import kill
from tests.postgres import running_postgresql

STEPS, SAVE_EVERY = 480, 24
MAX_OPEN = 6
Fault = Callable[[System, Random], object]
MAX_ATTEMPTS = 25  # so many deaths in a row without a step between them do not happen by chance


class Missed(Exception):
    """There was nothing the fault could hit."""


def worker_and_trainer_stopped(system: System, random: Random) -> None:
    """Stop both, possibly for longer than the lease, as on a stalled machine."""
    _, occupant = _at_work(system, random)
    worker = system.worker_of(occupant)
    worker.send(signal.SIGSTOP)
    _send(occupant, signal.SIGSTOP)
    time.sleep(random.uniform(1, 12))
    _send(occupant, signal.SIGCONT)
    worker.send(signal.SIGCONT)


def _send(occupant: Occupant, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(occupant.process.pid, number)


def newest_checkpoint_damaged(system: System, random: Random) -> None:
    folder, occupant = _at_work(system, random)
    kill(occupant.process)
    with contextlib.suppress(OSError, ValueError):
        newest = max((folder.run / "checkpoints").glob("step-*"))
        corrupt(newest / "state.safetensors", random)


def for_a_while(fault: Callable[[System, Random], AbstractContextManager[None]], most_s: float) -> Fault:
    """A fault that lasts for a random time."""

    def inject(system: System, random: Random) -> None:
        with fault(system, random):
            time.sleep(random.uniform(0.5, most_s))

    return inject


FAULTS: dict[str, Fault] = {
    "trainer_killed": lambda system, random: kill(_at_work(system, random)[1].process),
    "worker_killed": lambda system, random: random.choice(system.workers).send(signal.SIGKILL),
    "worker_asked_to_stop": lambda system, random: random.choice(system.workers).send(signal.SIGTERM),
    "service_killed": lambda system, random: random.choice(system.services).send(signal.SIGKILL),
    "valkey_killed": lambda system, random: system.kill_valkey(),
    "broker_wiped": lambda system, random: system.wipe_broker(),
    "broker_cut": for_a_while(lambda system, _: system.broker.away("cut"), 6),
    "broker_stalled": for_a_while(lambda system, _: system.broker.away("stall"), 6),
    "database_cut": for_a_while(lambda system, _: system.database_away("cut"), 6),
    "database_stalled": for_a_while(lambda system, _: system.database_away("stall"), 6),
    "worker_and_trainer_stopped": worker_and_trainer_stopped,
    "disk_full": lambda system, random: fill_disk_of(_at_work(system, random)[1]),
    "data_folder_unmounted": for_a_while(
        lambda system, random: system.unmounted(random.choice(system.workers)), 12
    ),
    "device_broken": for_a_while(
        lambda system, random: system.broken_device(random.choice(system.workers)), 12
    ),
    "newest_checkpoint_damaged": newest_checkpoint_damaged,
}


@dataclass
class Storm:
    """How often each fault was injected, and what went wrong meanwhile."""

    put_in: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)


def blow(system: System, count: int, seconds: float, random: Random, ending: threading.Event) -> Storm:
    """Inject faults evenly over the time, in random order."""
    storm, due = Storm(), time.monotonic()
    waiting = [list(FAULTS)[number % len(FAULTS)] for number in range(count)]
    random.shuffle(waiting)
    while waiting and not ending.wait(max(0.0, due - time.monotonic())):
        fault = waiting.pop()
        try:
            FAULTS[fault](system, random)
        except (Missed, StopIteration, ProcessLookupError, StoreUnavailable):
            waiting.insert(0, fault)  # the target is gone; try again later
            due = time.monotonic() + 0.5
            continue
        except Exception:
            storm.errors.append(traceback.format_exc())
        storm.put_in[fault] += 1
        due = max(time.monotonic(), due + seconds / count)
    return storm


def run(system: System, *, jobs: int, faults: int, seconds: float, random: Random) -> tuple[Findings, Storm]:
    """Keep some jobs open until all have arrived and ended and every fault was injected."""
    waiting = [random.getrandbits(32) for _ in range(jobs)]
    deadline, next_at = time.monotonic() + 3 * seconds + 600, time.monotonic()
    ending = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        storm = thread.submit(blow, system, faults, seconds, random, ending)
        try:
            while (waiting or not storm.done() or _open(system)) and time.monotonic() < deadline:
                system.tend()
                if not (waiting or storm.done() or _open(system)):
                    waiting.append(random.getrandbits(32))  # some faults hit only a job at work
                if waiting and time.monotonic() >= next_at and len(_open(system)) < MAX_OPEN:
                    if _submitted(system, waiting[-1]):
                        waiting.pop()
                    next_at += seconds / jobs * 0.8
                _resume_paused(system)
                time.sleep(0.1)
        finally:
            ending.set()
    with contextlib.suppress(TimeoutError):
        system.until(system.serves_the_alias, "the alias's version in service")
    return check(system, any_age=True), storm.result()


def _submitted(system: System, seed: int) -> bool:
    """Submit a job; returns whether it was accepted. Every third one's checkpoints can fill the disk."""
    try:
        system.submit(
            seed,
            key=f"soak-{seed}",
            steps=STEPS,
            save_every=SAVE_EVERY,
            **({"trainable": "all"} if seed % 3 == 0 else {}),
        )
    except httpx.HTTPError:
        return False
    return True


def _open(system: System) -> list[str]:
    return [job_id for job_id in system.accepted if system.job(job_id).finished_at is None]


def _resume_paused(system: System) -> None:
    for job_id in _open(system):
        if system.job(job_id).status is JobStatus.PAUSED:
            with contextlib.suppress(httpx.HTTPError):
                system.client.post(f"/jobs/{job_id}/resume")


def _at_work(system: System, random: Random) -> tuple[JobFolder, Occupant]:
    found = [each for each in occupants(system.config.jobs_dir) if _is_of_a_worker(system, each[1])]
    if not found:
        raise Missed
    return random.choice(found)


def _is_of_a_worker(system: System, occupant: Occupant) -> bool:
    return any(worker.pid == occupant.supervisor.pid for worker in system.workers)


def told(system: System, findings: Findings, storm: Storm, seconds: float) -> Iterator[str]:
    """The report, line by line."""
    statuses = Counter(str(system.job(job_id).status) for job_id in system.accepted)
    yield f"{len(system.accepted)} jobs, {storm.put_in.total()} faults in {seconds:.0f} s: {dict(statuses)}"
    yield f"faults: {dict(sorted(storm.put_in.items()))}"
    yield from (f"{name}: {found or 'none'}" for name, found in findings.by_name().items())
    yield from storm.errors


@dataclass(frozen=True)
class Plan:
    """How much happens."""

    jobs: int = option(40, "Number of jobs that arrive.")
    faults: int = option(200, "Number of faults.")
    minutes: float = option(13.0, "Number of minutes over which the faults come.")
    seed: int = option(0, "Seed of everything random.")
    work_dir: Path | None = option(None, "Folder in which the system and its logs are kept.", kind=Path)


def main(arguments: list[str] | None = None) -> None:
    """Exits with 1 if anything was lost, duplicated or wrong."""
    plan = parse(Plan, "bench.faults.soak", __doc__, arguments)
    with (
        ended_by_sigterm(),
        work_dir(plan.work_dir) as folder,
        running_postgresql() as postgresql,
        running_system(
            folder / "system", make_inputs(folder), postgresql, max_attempts=MAX_ATTEMPTS
        ) as system,
    ):
        print(report.machine(), flush=True)
        began, random, seconds = time.monotonic(), Random(plan.seed), 60 * plan.minutes
        findings, storm = run(system, jobs=plan.jobs, faults=plan.faults, seconds=seconds, random=random)
        print("\n".join(told(system, findings, storm, time.monotonic() - began)), flush=True)
    sys.exit(bool(findings or storm.errors))


if __name__ == "__main__":
    main()
