"""A rolling restart for real: the program of the release before, out of the repository's history, beside today's.

Both have processes over one database, one broker and one data folder.
"""

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sds_clip import Client, Job
from sds_clip.app.store import Store
from sds_clip.worker.valkey import Valkey
from tests.app.serverside import START_TIMEOUT_S, free_port
from tests.databases import Databases, on_both
from tests.sds_clip.embedded import PATIENCE_S, until
from tests.training import save_coco
from tests.upgrade.make import FLOAT32, IMAGE, TEXTS

pytestmark = [pytest.mark.long, pytest.mark.slow]

TODAY = Path(__file__).parents[2]
BEFORE = "397b9204909ede642ca898878c859f4ee352416b"
"""The commit before the first that keeps this promise. Its newest migration is `sds_clip.app.store.migrate.OLDEST`."""
PARTS = ("app", "worker", "models", "sds_clip", "demo", "pyproject.toml")
SHORT = {"steps": 4, "batch_size": 8, "warmup_steps": 1, "lr": 1e-3, "precision": "float32"}
LONG = {**SHORT, "steps": 200, "log_every": 5}


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the release before, in a folder of its own."""
    made = subprocess.run(["git", "-C", str(TODAY), "archive", BEFORE, *PARTS], capture_output=True)
    if made.returncode != 0:
        pytest.skip(f"The clone lacks the commit {BEFORE}: git fetch --unshallow")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


class Processes:
    """Services and workers of any release over one data folder, which are killed at the end."""

    def __init__(self, folder: Path, database_url: str, broker_url: str) -> None:
        self._folder = folder
        self._settings = {
            **FLOAT32,
            "SDS_CLIP_DATA_DIR": str(folder / "data"),
            "SDS_CLIP_DATABASE_URL": database_url,
            "SDS_CLIP_BROKER_URL": broker_url,
            "SDS_CLIP_DEVICE": "cpu",
            "SDS_CLIP_THREADS": "1",
            "SDS_CLIP_WORKER_THREADS": "1",
            "SDS_CLIP_KEEP_WARM": "false",
            "SDS_CLIP_LEASE_TTL_S": "30",
        }
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, program: Path, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "sds_clip", *arguments]
        environment = {**os.environ, **self._settings, "PYTHONPATH": str(program)}
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, cwd=program, env=environment, stdout=log, stderr=log)
        self._running.append(process)
        return process

    @property
    def log(self) -> Path:
        return self._folder / "processes.log"

    @contextlib.contextmanager
    def service(self, program: Path) -> Iterator[Client]:
        """A service, for as long as the block lasts. It is ready, and it is asked to stop at the end."""
        port = free_port()
        process = self.start(program, "serve", "--port", str(port))
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_TIMEOUT_S
        while not _is_ready(url):
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        with Client(url) as client:
            yield client
        assert stopped(process) == 0

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/ready", timeout=60).status_code == httpx.codes.OK
    return False


def stopped(process: "subprocess.Popen[bytes]") -> int:
    """The exit code of a process that is asked to stop."""
    process.terminate()
    return process.wait(PATIENCE_S)


@pytest.fixture
def processes(tmp_path: Path, databases: Databases) -> Iterator[Processes]:
    with Valkey(tmp_path / "broker") as valkey:
        running = Processes(tmp_path, databases.url(databases.empty()), valkey.url)
        yield running
        running.close()


@pytest.fixture
def store(processes: Processes) -> Iterator[Store]:
    opened = Store(processes._settings["SDS_CLIP_DATABASE_URL"])
    yield opened
    opened.close()


def finetune(client: Client, dataset: str, hyperparameters: dict[str, Any], seed: int) -> Job:
    return client.finetune(
        dataset, base="demo", objective="clip", hyperparameters=hyperparameters, seed=seed, promote="always"
    )


def claims(store: Store, job: Job) -> list[str]:
    """The process of each worker that took the job, in order. A job that has ended did so once."""
    data = [event.data or {} for event in store.events.transitions(job.id)]
    assert [each["to"] for each in data].count("succeeded") == 1
    return [str(each["owner"]) for each in data if "owner" in each]


def is_by(owner: str, worker: "subprocess.Popen[bytes]") -> bool:
    return f"/{worker.pid}/" in owner


@on_both
def test_old_and_new_programs_share_a_system_and_nothing_is_lost_or_done_twice(
    before: Path, processes: Processes, store: Store, tmp_path: Path
) -> None:
    save_coco(tmp_path / "pairs")
    with contextlib.ExitStack() as old_service:
        old = old_service.enter_context(processes.service(before))
        old_worker = processes.start(before, "worker", "--queue", "finetune")
        until(lambda: any(worker["alive"] for worker in old.workers()))
        earliest = old.upload_dataset(tmp_path / "pairs", format="pairs", name="earliest")["id"]
        until(lambda: old.dataset(earliest)["status"] == "ready")

        store.migrate()

        # A new service beside an old worker, which checks its data set and runs its job.
        with processes.service(TODAY) as new:
            dataset = new.upload_dataset(tmp_path / "pairs", format="pairs")["id"]
            until(lambda: new.dataset(dataset)["status"] == "ready")
            by_old = finetune(new, dataset, SHORT, 1).wait()
            handed_over = finetune(new, dataset, LONG, 2)
            until(lambda: handed_over.refresh().info["progress"]["step"] > 5 or handed_over.has_ended)
            assert handed_over.status == "running"

            # The old worker stops at a checkpoint, and a new one goes on from there.
            assert stopped(old_worker) == 0
            new_worker = processes.start(TODAY, "worker", "--queue", "finetune")
            handed_over.wait()
            assert any("step" in (event["data"] or {}) for event in handed_over.events())

            # An old service beside a new worker, which runs its job. Its data set waits until the service has ended.
            later = old.upload_dataset(tmp_path / "pairs", format="pairs", name="later")["id"]
            by_new = finetune(old, dataset, SHORT, 3).wait()
            assert new.dataset(later)["status"] == "validating"

            assert [is_by(owner, old_worker) for owner in claims(store, by_old)] == [True]
            assert [is_by(owner, old_worker) for owner in claims(store, handed_over)] == [True, False]
            assert [is_by(owner, new_worker) for owner in claims(store, by_new)] == [True]
            versions = [job.refresh().version for job in (by_old, handed_over, by_new)]
            assert len(set(versions)) == 3
            promotions = [each.to_version for each in store.aliases.promotions("default", limit=10)]
            assert promotions[:-1] == versions[::-1]
            assert {job.id for job in new.jobs()} == {job.id for job in (by_old, handed_over, by_new)}

            # Both serve what the new worker has made, with the same scores.
            answers = []
            for client in (old, new):
                until(lambda: client.match([IMAGE], TEXTS)["model"]["version"] == versions[-1])  # noqa: B023
                answers.append(client.match([IMAGE], TEXTS)["results"][0]["scores"])
            assert answers[0] == pytest.approx(answers[1], abs=1e-6)
            assert old.rollback(reason="a test")["version"] == versions[-2]
            until(lambda: new.match([IMAGE], TEXTS)["model"]["version"] == versions[-2])

            old_service.close()
            until(lambda: new.dataset(later)["status"] == "ready")
            [check] = new.jobs(kind="check")
            assert check.status == "succeeded"

        # An old program that ends cannot come back. From the next release on it can.
        again = processes.start(before, "worker", "--queue", "finetune")
        assert again.wait(PATIENCE_S) != 0
        assert "A newer version of this program made the database" in processes.log.read_text()
