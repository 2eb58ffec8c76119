"""`sds-clip up` as it is run: every process of it real."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from sds_clip import Client, Job
from tests.training import save_coco
from worker.valkey import end_leftover, socket_path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]

PATIENCE_S = 240.0
SETTINGS = {"SDS_CLIP_LEASE_TTL_S": "10", "SDS_CLIP_KEEP_WARM": "false", "SDS_CLIP_WORKER_NICE": "0"}
ENDLESS = {"steps": 100_000, "batch_size": 8, "warmup_steps": 1, "save_every": 2}


class Running:
    """A run over a folder, once it has said that it is ready."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self._log = folder / "up.log"
        command = [sys.executable, "-m", "sds_clip", "up", "--port", "0", "--data-dir", str(self.data_dir)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--device", "cpu", "--threads", "1", "--worker-threads", "1"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **SETTINGS},
            )
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()
        found = re.search(r"http://[\d.:]+", self.greeting)
        assert found, self._log.read_text()
        self.url = found[0]

    def parts(self) -> dict[int, str]:
        """Command lines of all living processes that belong to the run, but for the supervisor's."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != self.process.pid:
                try:
                    command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
                except OSError:
                    continue
                if bytes(self.data_dir) in command + environment:
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode()
        return found

    def part(self, words: str) -> int | None:
        """The process whose command line holds the words."""
        return next((pid for pid, command in self.parts().items() if words in command), None)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        until(lambda: not [command for command in self.parts().values() if "valkey" not in command])
        end_leftover(socket_path(self.data_dir / "broker"))


def until(happened: Callable[[], object]) -> None:
    """Wait until it has; fails after a time that only a hang takes."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def step_of(job: Job) -> int:
    """The step that a job which has not ended is at."""
    info = job.refresh().info
    assert not job.has_ended, info
    return int(info["progress"]["step"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up")


@pytest.fixture(scope="module")
def system(folder: Path) -> Iterator[Running]:
    running = Running(folder)
    yield running
    running.close()


@pytest.fixture(scope="module")
def dataset(system: Running, folder: Path) -> str:
    save_coco(folder / "pairs")
    with Client(system.url) as client:
        return str(client.upload_dataset(folder / "pairs", format="pairs")["id"])


def test_it_is_ready_where_it_says(system: Running) -> None:
    assert system.greeting.startswith(f"SDS-CLIP is ready at {system.url} ")
    assert httpx.get(f"{system.url}/ready", timeout=30).status_code == 200


def test_a_second_run_over_the_folder_is_refused_and_the_first_goes_on(system: Running) -> None:
    command = [sys.executable, "-m", "sds_clip", "up", "--data-dir", str(system.data_dir)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert second.returncode == 2
    assert "is in use by another `sds-clip up`" in second.stderr
    assert second.stdout == ""
    assert httpx.get(f"{system.url}/ready", timeout=30).status_code == 200


def test_a_job_becomes_a_version_that_is_promoted(system: Running, dataset: str, tmp_path: Path) -> None:
    options = {"steps": 4, "batch_size": 8, "warmup_steps": 1}
    with Client(system.url) as client:
        job = client.finetune(dataset, objective="clip", hyperparameters=options, promote="always")
        job.wait()
        assert client.model("default")["id"] == job.version
        assert client.dataset(dataset)["status"] == "ready"
        assert [point["step"] for point in job.metrics()][-1] == 4
        tar = client.download(str(job.version), tmp_path / "version.tar")
        assert tar.stat().st_size > 0


def test_what_is_killed_comes_back_and_the_job_goes_on(system: Running, dataset: str) -> None:
    names = ("valkey-server", "sds_clip worker --queue finetune", "sds_clip worker --queue evaluate")
    before = {name: system.part(name) for name in names}
    assert None not in before.values()
    with Client(system.url) as client:
        job = client.finetune(dataset, objective="clip", hyperparameters=ENDLESS)
        until(lambda: step_of(job) > 2)
        for pid in before.values():
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        killed_at = step_of(job)
        until(lambda: step_of(job) > killed_at)
        assert job.info["attempt"] == 2
    after = {name: system.part(name) for name in names}
    assert None not in after.values()
    assert not set(before.values()) & set(after.values())


def test_ctrl_c_ends_all_and_the_next_start_finds_everything(system: Running, folder: Path) -> None:
    with Client(system.url) as client:
        (running,) = client.jobs(status="running")
        version = client.model("default")["id"]
    system.process.send_signal(signal.SIGINT)
    assert system.process.wait(PATIENCE_S) == 0
    assert system.parts() == {}
    again = Running(folder)
    try:
        with Client(again.url) as client:
            assert client.model("default")["id"] == version
            job = client.job(running.id)
            stopped_at = step_of(job)
            until(lambda: step_of(job) > stopped_at)
            assert job.info["attempt"] == 2  # the one that was let go does not count
            messages = [change["message"] for change in job.info["transitions"]]
            assert any(message.startswith("Stopped at a checkpoint") for message in messages)
        again.process.kill()
        until(lambda: not [command for command in again.parts().values() if "valkey" not in command])
    finally:
        again.close()


def test_a_service_that_cannot_start_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sds_clip", "up", "--port", "0", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(
        [*command, "--model", "local-dir:nowhere"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    assert "sds-clip: " in done.stderr
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
