"""Workers at work, and waiting for what happens in other threads and processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from sds_clip.app.data_folder import DataFolder
from sds_clip.app.store import Store
from sds_clip.app.store.states import JobStatus
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.fitness import Fitness
from sds_clip.worker.folders import occupants
from sds_clip.worker.identity import ProcessId, is_alive, kill
from sds_clip.worker.metrics import WorkerMetrics
from sds_clip.worker.reaper import Reaper
from sds_clip.worker.slot import Slot

PATIENCE_S = 600.0
LIGHT = (sys.executable, "-m", "tests.worker.light_process")


def until(happened: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Wait until it has; fails after a time that only a hang takes."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def until_status(store: Store, job_id: str, status: JobStatus) -> None:
    """Wait until a job is there; one that has ended otherwise is said at once."""

    def there() -> bool:
        job = store.jobs.get(job_id)
        ended = job.status in (JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.SUCCEEDED)
        assert job.status is status or not ended, job
        return job.status is status

    until(there)


def fit(config: WorkerConfig, store: Store) -> Fitness:
    """The fitness of a worker that has had no failure."""
    return Fitness(config, DataFolder(store.database, config.data_dir))


def reaper(config: WorkerConfig, store: Store, fitness: Fitness | None = None) -> Reaper:
    metrics = WorkerMetrics(config.data_dir, 0)
    return Reaper(config, store, fitness or fit(config, store), metrics)


class Running:
    """A slot at work in this process, as a context."""

    def __init__(self, config: WorkerConfig, store: Store, **options: object) -> None:
        self.slot = Slot(config, store, **{"fitness": fit(config, store), **options})  # type: ignore[arg-type]

    def __enter__(self) -> Slot:
        self.slot.start()
        return self.slot

    def __exit__(self, *_: object) -> None:
        self.slot.stop()
        assert self.slot.join(PATIENCE_S)


class WorkerProcess:
    """A whole worker in a process of its own, as a context that kills it and its jobs' processes at the end."""

    def __init__(self, config: WorkerConfig, module: str = "tests.worker.light_worker") -> None:
        config.data_dir.mkdir(parents=True, exist_ok=True)
        self._jobs_dir = config.jobs_dir
        file = config.data_dir / f"worker-{time.monotonic_ns()}.json"
        file.write_text(config.dumps())
        self.process = subprocess.Popen([sys.executable, "-m", module, str(file)])

    def __enter__(self) -> "subprocess.Popen[bytes]":
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        left = [occupant.process for _, occupant in occupants(self._jobs_dir)]
        for process in left:
            kill(process)
        until(lambda: not any(map(is_alive, left)))


def job_process(config: WorkerConfig, fence: int = 1) -> ProcessId:
    """The process that works on the one job's attempt, once there is one."""
    found: list[ProcessId] = []

    def there() -> bool:
        found[:] = [
            occupant.process
            for folder, occupant in occupants(config.jobs_dir)
            if folder.path.name == str(fence)
        ]
        return bool(found)

    until(there)
    return found[0]


def followers(config: WorkerConfig, fence: int = 1) -> list[psutil.Process]:
    """The other processes of the one job on several devices."""
    children = psutil.Process(job_process(config, fence).pid).children(recursive=True)
    return [child for child in children if "sds_clip.worker.followers" in child.cmdline()]


def end(process: ProcessId, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that is known to live."""
    assert is_alive(process)
    os.kill(process.pid, number)


def notes(config: WorkerConfig) -> list[str]:
    """What light jobs have written down, without the processes' numbers."""
    file: Path = config.data_dir / "notes"
    return [line.rpartition(" ")[0] for line in file.read_text().splitlines()] if file.exists() else []
