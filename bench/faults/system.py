"""A whole system in real processes: two services, two workers, Valkey and a database, as in production.

`tend` restarts what has died, as `sds-clip up` and Docker's restart policies do.
"""

import contextlib
import itertools
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import redis
from torch import Tensor

from bench.faults.callers import Caller
from bench.faults.crash_points import POINTS, REACHED, environment
from bench.faults.parts import Part, Service
from bench.faults.proxy import Outage, Proxy
from sds_clip.app.settings import DISK_RESERVE_BYTES, MAX_ATTEMPTS
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.folders import JobFolder, Occupant, occupants
from sds_clip.worker.identity import kill as kill_exactly
from sds_clip.worker.valkey import Valkey
from tests.app.serving.swapping import own_numbers
from tests.checkpoints import save_tiny_clip
from tests.databases import held
from tests.postgres import PostgreSQL
from tests.training import save_coco
from tests.worker.sets import add_ready

PATIENCE_S = 300.0
STEPS, SAVE_EVERY = 96, 8
# Short, so that a lost job is taken over quickly.
LEASE_S = 8.0
RETRY_S = 0.1
MIGRATING = threading.Lock()  # Alembic has one context per process


@dataclass(frozen=True)
class Inputs:
    """A small model and a small data set."""

    model: Path
    pairs: Path


def make_inputs(folder: Path) -> Inputs:
    save_coco(folder / "pairs")
    return Inputs(save_tiny_clip(folder / "tiny"), folder / "pairs")


class System:
    """One system in a folder, over SQLite or PostgreSQL. Broker and PostgreSQL are behind proxies."""

    def __init__(
        self,
        closing: contextlib.ExitStack,
        folder: Path,
        inputs: Inputs,
        postgresql: PostgreSQL | None,
        *,
        keep_warm: bool,
        max_attempts: int,
        disk_reserve_bytes: int,
    ) -> None:
        self.data_dir = folder / "data"
        self._points = folder / "points"
        self._points.mkdir(parents=True)
        self.accepted: list[str] = []
        self._keys = itertools.count()
        self.valkey = Valkey(folder / "valkey")
        self.valkey_folder = folder / "valkey"
        self.valkey.start()
        closing.callback(lambda: self.valkey.stop())
        self.broker = _proxy(closing, lambda: _unix(self.valkey.socket))
        direct = through = f"sqlite:///{self.data_dir / 'jobs.db'}"
        self.database: Proxy | None = None
        if postgresql is not None:
            server = "127.0.0.1", postgresql.port
            self.database = _proxy(closing, lambda: socket.create_connection(server))
            direct = postgresql.url(postgresql.create())
            through = direct.replace(f":{postgresql.port}/", f":{self.database.port}/")
        self.database_url = direct
        self.broker_url = f"redis://127.0.0.1:{self.broker.port}/0"
        self.store = Store(direct)
        closing.callback(self.store.close)
        with MIGRATING:
            self.store.migrate()
        config = WorkerConfig(
            broker_url=self.broker_url,
            database_url=through,
            data_dir=self.data_dir,
            queue="finetune",
            device="cpu",
            threads=1,
            lease_ttl_s=LEASE_S,
            idle_tick_s=2.0,
            watch_every_s=0.2,
            retry_base_s=RETRY_S,
            report_every_s=0.2,
            reap_every_s=1.0,
            store_timeout_s=2.0,
            keep_warm=keep_warm,
            checks_datasets=False,
            min_save_interval_s=0.0,
            disk_reserve_bytes=disk_reserve_bytes,
        )
        self.config = config
        self._pairs = add_ready(self.store, config, inputs.pairs, "pairs")
        self._base = f"local-dir:{inputs.model}"
        settings = {
            "DATABASE_URL": through,
            "BROKER_URL": self.broker_url,
            "DATA_DIR": str(self.data_dir),
            "MODELS": self._base,
            "PRECISION": "float32",
            "DEVICE": "cpu",
            "THREADS": "1",
            "STORE_TIMEOUT_S": "2",
            "MAX_ATTEMPTS": str(max_attempts),
            "DISK_RESERVE_BYTES": str(disk_reserve_bytes),
        }
        points = environment(self._points) | {"OMP_NUM_THREADS": "1"}
        told = {f"SDS_CLIP_{name}": value for name, value in settings.items()} | points
        self.services = [
            Service(name, folder, told | {"SDS_CLIP_DATA_DIR": str(self.mount(name))})
            for name in ("service-1", "service-2")
        ]
        for service in self.services:
            closing.callback(service.stop)
        self.service = self.services[0]
        base = load_clip(self._base, device="cpu", precision="float32")
        self._scores = {base.version: scores(base)}
        self.workers = []
        for name in ("worker-1", "worker-2"):
            file = folder / f"{name}.json"
            file.write_text(replace(config, data_dir=self.mount(name)).dumps())
            work = [sys.executable, "-m", "tests.worker.real_worker", str(file)]
            self.workers.append(Part(name, folder, work, points | environment(self._points, name)))
        for worker in self.workers:
            closing.callback(worker.stop)
        closing.callback(self._end_jobs)
        self.client = closing.enter_context(httpx.Client(base_url=self.service.url, timeout=30))
        for service in self.services:
            self.until(service.version)
        self.callers = [Caller(service.url) for service in self.services]
        for caller in self.callers:
            closing.callback(caller.close)

    def mount(self, name: str) -> Path:
        """The data folder as a process sees it, which is mounted there."""
        place = self._points.parent / f"{name}-data"
        place.symlink_to(self.data_dir)
        return place

    @contextlib.contextmanager
    def unmounted(self, part: Part) -> Iterator[None]:
        """Within the block, a process sees an empty folder in place of the data folder."""
        place = self._points.parent / f"{part.name}-data"
        place.unlink()
        place.mkdir()
        try:
            yield
        finally:
            place.rename(f"{place}-{time.monotonic_ns()}")
            self.mount(part.name)

    @contextlib.contextmanager
    def broken_device(self, part: Part) -> Iterator[None]:
        """Within the block, nothing can compute on a worker's device."""
        file = self._points / part.name
        file.touch()
        try:
            yield
        finally:
            file.unlink()

    def until_out(self, part: Part, is_out: bool = True) -> None:
        """Wait until a worker says that it takes no jobs, or takes them again."""

        def says() -> bool:
            rows = {each.pid: each.out_because for each in self.store.workers.list()}
            return part.pid in rows and (rows[part.pid] is not None) is is_out

        self.until(says, f"{part.name} is out: {is_out}")

    def kill_valkey(self) -> None:
        """Kill Valkey with SIGKILL. `Valkey.stop` would shut it down cleanly."""
        process = self.valkey._process
        assert process is not None
        process.kill()
        process.wait()

    def wipe_broker(self) -> None:
        """Delete the broker's data, then kill it and delete its files."""
        with (
            contextlib.suppress(redis.RedisError),  # it may have died meanwhile
            contextlib.closing(redis.Redis(unix_socket_path=str(self.valkey.socket))) as client,
        ):
            client.flushall()
        self.kill_valkey()
        shutil.rmtree(self.valkey_folder / "appendonlydir", ignore_errors=True)

    def database_away(self, how: Outage) -> contextlib.AbstractContextManager[None]:
        """Within the block PostgreSQL cannot be reached, or somebody else holds SQLite's file."""
        if self.database is not None:
            return self.database.away(how)
        return held(self.database_url, timeout_s=60)

    def tend(self) -> None:
        """Restart what has died."""
        for part in (*self.services, *self.workers):
            if part.has_died():
                part.start()
        if not self.valkey.is_running():
            self.valkey.start()

    def until(self, happened: Callable[[], object], what: str = "it") -> None:
        """Tend to the system until something has happened. Raises TimeoutError after PATIENCE_S."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} never happened")
            self.tend()
            time.sleep(0.02)

    def submit(self, seed: int, *, key: str | None = None, **hyperparameters: Any) -> str:
        """Submit a job whose version is always promoted; returns its id."""
        options = {
            "steps": STEPS,
            "save_every": SAVE_EVERY,
            "batch_size": 8,
            "warmup_steps": 1,
            "lr": 1e-3,
            "precision": "float32",
            "log_every": 1,
        }
        body = {
            "base": self._base,
            "objective": "clip",
            "training_data": self._pairs,
            "promote": "always",
            "seed": seed,
            "hyperparameters": options | hyperparameters,
        }
        answer = self.client.post(
            "/finetune", json=body, headers={"Idempotency-Key": key or f"key-{next(self._keys)}"}
        )
        answer.raise_for_status()
        job_id: str = answer.json()["id"]
        if job_id not in self.accepted:
            self.accepted.append(job_id)
        return job_id

    def job(self, job_id: str) -> Job:
        return self.store.jobs.get(job_id)

    def until_step(self, job_id: str, step: int = 1) -> None:
        """Wait until a job has reported this many training steps."""

        def trains() -> bool:
            job = self.job(job_id)
            return job.stage == "training" and job.step >= step

        self.until(trains, f"step {step} of {job_id}")

    def until_recovered(self, job_id: str) -> None:
        """Wait until a job has ended and every service serves the alias's version."""
        self.until(lambda: self.job(job_id).finished_at, f"the end of {job_id}")
        self.until(self.serves_the_alias, "the alias's version in service")

    def serves_the_alias(self) -> bool:
        """Whether every service serves the alias's version."""
        version = self.store.aliases.get("default").version
        return all(service.version() == version for service in self.services)

    def scores_of(self, version: str) -> Tensor:
        """A version's own scores, computed without a service."""
        if version not in self._scores:
            reference = f"local-dir:{self.config.versions_dir / version}"
            clip = load_clip(reference, device="cpu", precision="float32")
            self._scores[version] = scores(clip)
        return self._scores[version]

    def trainer(self, job_id: str) -> tuple[JobFolder, Occupant] | None:
        """The process working on a job's newest attempt, and its folder; None if there is none."""
        fence = self.job(job_id).fence
        for folder, occupant in occupants(self.config.jobs_dir):
            if folder.path == self.config.jobs_dir / job_id / str(fence):
                return folder, occupant
        return None

    def at_work(self, job_id: str) -> tuple[JobFolder, Occupant]:
        """Like `trainer`, but waits for one."""
        self.until(lambda: self.trainer(job_id), f"somebody at work on {job_id}")
        found = self.trainer(job_id)
        if found is None:
            raise TimeoutError(f"{job_id} ended too soon")
        return found

    def worker_of(self, occupant: Occupant) -> Part:
        """The worker that supervises a job's process."""
        return next(worker for worker in self.workers if worker.pid == occupant.supervisor.pid)

    def arm(self, point: str, visit: int = 1) -> None:
        """Make the process that reaches a point for the n-th time from now on die there."""
        assert point in POINTS
        (self._points / f"{point}{REACHED}").unlink(missing_ok=True)
        written = self._points / f".{point}"
        written.write_text(str(visit))
        written.rename(self._points / point)

    def until_reached(self, point: str) -> float:
        """Wait until a process has died at an armed point; returns the time."""
        file = self._points / f"{point}{REACHED}"
        self.until(file.exists, f"a process's death {point}")
        return time.time()

    def _end_jobs(self) -> None:
        """Kill job processes; stopped ones would not see their pipe close."""
        for _, occupant in occupants(self.config.jobs_dir):
            kill_exactly(occupant.process)


@contextlib.contextmanager
def running_system(
    folder: Path,
    inputs: Inputs,
    postgresql: PostgreSQL | None = None,
    *,
    keep_warm: bool = True,
    max_attempts: int = MAX_ATTEMPTS,
    disk_reserve_bytes: int = DISK_RESERVE_BYTES,
) -> Iterator[System]:
    """Start a system. It is stopped at the end of the block, or if it fails to start."""
    with contextlib.ExitStack() as closing:
        yield System(
            closing,
            folder,
            inputs,
            postgresql,
            keep_warm=keep_warm,
            max_attempts=max_attempts,
            disk_reserve_bytes=disk_reserve_bytes,
        )


@contextlib.contextmanager
def work_dir(given: Path | None) -> Iterator[Path]:
    """A new folder within `given`, which is kept, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(dir=given))
        return
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        yield Path(folder)


def scores(clip: Clip) -> Tensor:
    """Its scores of the callers' images and texts."""
    numbers: Tensor = own_numbers.__wrapped__(clip, "scores")  # its cache would keep the weights
    return numbers


def _proxy(closing: contextlib.ExitStack, connect: Callable[[], socket.socket]) -> Proxy:
    return closing.enter_context(contextlib.closing(Proxy(connect)))


def _unix(path: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    try:
        end.connect(str(path))
    except OSError:
        end.close()
        raise
    return end
