"""`sds-clip up` as it is run: every process of it real."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sds_clip import Client, Job
from sds_clip.cli import main
from tests.sds_clip.embedded import PATIENCE_S, Running, until
from tests.training import save_coco

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]

ENDLESS = {"steps": 100_000, "batch_size": 8, "warmup_steps": 1, "save_every": 2}


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
    assert "is ready" in system.greeting
    assert httpx.get(f"{system.url}/ready", timeout=30).status_code == 200


def test_a_second_run_over_the_folder_is_refused_and_the_first_goes_on(system: Running) -> None:
    command = [sys.executable, "-m", "sds_clip", "up", "--data-dir", str(system.data_dir)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert second.returncode == 2
    assert second.stderr.startswith("sds-clip: ")
    assert second.stderr.count("\n") == 1
    assert second.stdout == ""
    assert httpx.get(f"{system.url}/ready", timeout=30).status_code == 200


def test_parts_share_the_session_within_which_nice_is_weighed(system: Running) -> None:
    pids = [system.part(name) for name in ("sds_clip serve", "--queue finetune", "--queue evaluate")]
    assert {os.getsid(pid) for pid in pids if pid is not None} == {os.getsid(system.process.pid)}
    assert None not in pids


def test_a_job_becomes_a_version_that_is_promoted(
    system: Running, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"steps": 4, "batch_size": 8, "warmup_steps": 1, "log_every": 1}
    with Client(system.url) as client:
        job = client.finetune(dataset, objective="clip", hyperparameters=options, promote="always")
        job.wait()
        assert client.model("default")["id"] == job.version
        assert main(["jobs", "show", job.id, "--url", system.url]) == 0
        assert re.search(r"^promoted +yes: ", capsys.readouterr().out, re.MULTILINE)
        assert client.dataset(dataset)["status"] == "ready"
        assert [point["step"] for point in job.metrics()] == [1, 2, 3, 4]
        logged = list(job.log())
        assert [record["step"] for record in logged] == [1, 2, 3, 4]
        assert list(client.model_log("default")) == logged
        assert main(["models", "log", "default", "--url", system.url]) == 0
        assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == logged
        assert main(["jobs", "log", job.id, "--url", system.url]) == 0
        assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == logged
        tar = client.download(str(job.version), tmp_path / "version.tar")
        assert tar.stat().st_size > 0


@pytest.mark.long
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
        assert (job.info["attempt"], job.info["interruptions"]) == (1, 1)
        assert not job.info["no_worker"]
        alive = [worker["queue"] for worker in client.workers() if worker["alive"]]
        assert {"finetune", "evaluate"} <= set(alive)
        job.cancel()
    after = {name: system.part(name) for name in names}
    assert None not in after.values()
    assert not set(before.values()) & set(after.values())


@pytest.mark.long
def test_ctrl_c_ends_all_and_the_next_start_finds_everything(
    system: Running, dataset: str, folder: Path
) -> None:
    with Client(system.url) as client:
        running = client.finetune(dataset, objective="clip", hyperparameters=ENDLESS)
        until(lambda: step_of(running) > 2)
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
            assert (job.info["attempt"], job.info["interruptions"]) == (1, 1)
            messages = [change["message"] for change in job.info["transitions"]]
            assert any(message.startswith("Stopped: its worker") for message in messages)
        again.process.kill()
        until(lambda: not [command for command in again.parts().values() if "valkey" not in command])
    finally:
        again.close()


@pytest.mark.long
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


@pytest.mark.long
def test_without_the_trainer_it_serves_and_says_what_is_missing(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys; sys.modules['diffusers'] = None\n")
    running = Running(tmp_path, PYTHONPATH=str(hidden))
    try:
        assert "pip install 'sds-clip[train]'" in (tmp_path / "up.log").read_text()
        assert running.part("--queue evaluate") is not None
        assert running.part("--queue finetune") is None
        save_coco(tmp_path / "pairs")
        with Client(running.url) as client:
            uploaded = client.upload_dataset(tmp_path / "pairs", format="pairs")
            job = client.finetune(str(uploaded["id"]), objective="clip", hyperparameters={"steps": 1})
            assert job.info["no_worker"]
    finally:
        running.close()
