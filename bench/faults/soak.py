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
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx

from bench import report
from bench.faults.checks import Findings, check
from bench.faults.proxy import Outage, Proxy
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


def away(proxy: Proxy | None, how: Outage, random: Random) -> None:
    assert proxy is not None
    with proxy.away(how):
        time.sleep(random.uniform(0.5, 6))


def data_folder_unmounted(system: System, random: Random) -> None:
    with system.unmounted(random.choice(system.workers)):
        time.sleep(random.uniform(1, 12))


def device_broken(system: System, random: Random) -> None:
    with system.broken_device(random.choice(system.workers)):
        time.sleep(random.uniform(1, 12))


FAULTS: dict[str, Callable[[System, Random], object]] = {
    "trainer_killed": lambda system, random: kill(_at_work(system, random)[1].process),
    "worker_killed": lambda system, random: random.choice(system.workers).send(signal.SIGKILL),
    "worker_asked_to_stop": lambda system, random: random.choice(system.workers).send(signal.SIGTERM),
    "service_killed": lambda system, random: random.choice(system.services).send(signal.SIGKILL),
    "valkey_killed": lambda system, random: system.kill_valkey(),
    "broker_wiped": lambda system, random: system.wipe_broker(),
    "broker_cut": lambda system, random: away(system.broker, "cut", random),
    "broker_stalled": lambda system, random: away(system.broker, "stall", random),
    "database_cut": lambda system, random: away(system.database, "cut", random),
    "database_stalled": lambda system, random: away(system.database, "stall", random),
    "worker_and_trainer_stopped": worker_and_trainer_stopped,
    "disk_full": lambda system, random: fill_disk_of(_at_work(system, random)[1]),
    "data_folder_unmounted": data_folder_unmounted,
    "device_broken": device_broken,
    "newest_checkpoint_damaged": newest_checkpoint_damaged,
}


class Storm:
    """Injects faults in a thread, evenly over the time, in random order."""

    def __init__(self, system: System, count: int, seconds: float, random: Random) -> None:
        self._system = system
        self._random = random
        self._pause_s = seconds / count
        kinds = [list(FAULTS)[number % len(FAULTS)] for number in range(count)]
        random.shuffle(kinds)
        self._waiting = kinds
        self.put_in: Counter[str] = Counter()
        self.errors: list[str] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storm", daemon=True)

    def __enter__(self) -> "Storm":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        due = time.monotonic()
        while self._waiting and not self._ending.wait(max(0.0, due - time.monotonic())):
            fault = self._waiting.pop()
            try:
                FAULTS[fault](self._system, self._random)
            except (Missed, StopIteration, ProcessLookupError, StoreUnavailable):
                self._waiting.insert(0, fault)  # the target is gone; try again later
                due = time.monotonic() + 0.5
                continue
            except Exception:
                self.errors.append(traceback.format_exc())
            self.put_in[fault] += 1
            due = max(time.monotonic(), due + self._pause_s)


def run(system: System, *, jobs: int, faults: int, seconds: float, random: Random) -> tuple[Findings, Storm]:
    """Keep some jobs open until all have arrived and ended and every fault was injected."""
    waiting = [random.getrandbits(32) for _ in range(jobs)]
    deadline = time.monotonic() + 3 * seconds + 600
    with Storm(system, faults, seconds, random) as storm:
        pause_s = seconds / jobs * 0.8
        next_at = time.monotonic()
        while waiting or not storm.is_over or _open(system):
            if time.monotonic() > deadline:
                break
            system.tend()
            if waiting and time.monotonic() >= next_at and len(_open(system)) < MAX_OPEN:
                if _submitted(system, waiting[-1]):
                    waiting.pop()
                next_at += pause_s
            _resume_paused(system)
            time.sleep(0.1)
    with contextlib.suppress(TimeoutError):
        system.until(system.serves_the_alias, "the alias's version in service")
    return check(system, any_age=True), storm


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
