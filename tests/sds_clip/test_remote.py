"""The commands that speak to a service, against a real one."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sds_clip import Client
from sds_clip.commands.jobs import _status, result_fields
from sds_clip.remote import moment
from tests.app.serverside import RunningServer
from tests.sds_clip.command_line import exit_code
from tests.sds_clip.scripted import Answer, scripted
from tests.training import save_coco


@pytest.fixture
def run(
    service: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What a command prints."""
    monkeypatch.setenv("SDS_CLIP_URL", service.url)

    def run(*arguments: str, code: int = 0) -> str:
        assert exit_code(arguments) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 or captured.out else captured.err

    return run


@pytest.fixture
def read(run: Callable[..., str]) -> Callable[..., Any]:
    """What it prints as JSON."""
    return lambda *arguments, code=0: json.loads(run(*arguments, "--json", code=code))


@pytest.fixture
def dataset(read: Callable[..., Any], tmp_path: Path) -> str:
    save_coco(tmp_path / "pairs")
    return str(read("datasets", "upload", str(tmp_path / "pairs"), "--format", "pairs")["id"])


@pytest.fixture
def job(service: RunningServer, dataset: str) -> str:
    with Client(service.url) as client:
        return client.finetune(dataset, objective="clip", hyperparameters={"steps": 4}).id


def shown(text: str) -> dict[str, str]:
    """The fields that `show` prints, a line each."""
    return dict(re.split(r"\s{2,}", line)[:2] for line in text.splitlines())


def test_data_sets_are_listed_shown_and_deleted(
    run: Callable[..., str], read: Callable[..., Any], dataset: str
) -> None:
    header, first, *_ = run("datasets", "list").splitlines()
    assert header.split() == ["data", "set", "name", "format", "status", "created"]
    assert first.split()[:3] == [dataset, "pairs", "validating"]
    assert shown(run("datasets", "show", dataset))["status"] == "validating"
    assert dataset in run("datasets", "delete", dataset)
    assert read("datasets", "show", dataset)["status"] == "deleted"


def test_a_folder_on_the_server_is_registered_where_the_operator_allows(
    run: Callable[..., str], registered: Path, tmp_path: Path
) -> None:
    save_coco(registered / "coco")
    command = ["datasets", "register", "--format", "pairs", "--name", "coco"]
    told = shown(run(*command, str(registered / "coco")))
    assert (told["name"], told["status"]) == ("coco", "validating")
    assert run(*command, str(tmp_path), code=2).startswith("sds-clip: ")


def test_a_folder_without_files_is_one_line(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = run("datasets", "upload", str(tmp_path / "empty"), "--format", "pairs", code=2)
    assert str(tmp_path / "empty") in said
    assert said.count("\n") == 1


def test_jobs_are_listed_shown_and_cancelled(
    run: Callable[..., str], read: Callable[..., Any], job: str
) -> None:
    header, first, *_ = run("jobs", "list", "--kind", "finetune").splitlines()
    assert header.split()[:6] == ["job", "name", "kind", "status", "progress", "created"]
    assert first.split()[:3] == [job, "finetune", "validating"]
    assert len(read("jobs", "list", "--limit", "1")) == 1
    assert "--limit" in run("jobs", "list", "--limit", "0", code=2)
    said = shown(run("jobs", "show", job))["status"]
    assert said.startswith("validating (no worker")
    assert "sds-clip worker --queue finetune" in said
    assert run("jobs", "pause", job, code=2).startswith("sds-clip: ")
    said = run("jobs", "cancel", job)
    assert job in said
    assert "cancelled" in said
    assert read("jobs", "show", job)["transitions"][-1]["to_status"] == "cancelled"


def test_jobs_are_retried_and_deleted(run: Callable[..., str], read: Callable[..., Any], job: str) -> None:
    assert run("jobs", "delete", job, code=2).startswith("sds-clip: ")
    run("jobs", "cancel", job)
    said = run("jobs", "retry", job)
    assert job in said
    assert "validating" in said
    run("jobs", "cancel", job)
    assert job in run("jobs", "delete", job)
    assert "files removed" in shown(run("jobs", "show", job))


@pytest.mark.parametrize("command", [("workers", "list"), ("workers",)])
def test_workers_are_listed(
    command: tuple[str, ...], run: Callable[..., str], read: Callable[..., Any]
) -> None:
    header = ["worker", "queue", "alive", "device", "version", "started", "seen", "clock", "job", "out"]
    assert run(*command).split() == header
    assert read(*command) == []
    assert read(command[0], "--url", os.environ["SDS_CLIP_URL"], *command[1:]) == []


def test_an_evaluation_is_shown_with_group_match_and_chance_and_a_warning_with_its_code() -> None:
    match = {"value": 0.61, "chance": 0.5, "d_prime": 0.234}
    result = {
        "primary": "group_score",
        "metrics": {"group_score": {"value": 0.031, "chance": 1 / 6}, "group_match": match},
        "warnings": [{"code": "teacher_had_no_say", "message": "It had none.", "figures": {}}],
    }
    assert result_fields(result) == {
        "group_score": "3.10 % (chance 16.67 %)",
        "group_match": "61.00 % (chance 50.00 %, d' 0.23)",
        "warning": "It had none. (teacher_had_no_say)",
    }
    earlier = {"primary": "group_score", "metrics": {"group_score": {"value": 0.031}}}
    assert result_fields(earlier) == {"group_score": "3.10 %"}


def test_watching_a_job_that_does_not_succeed_is_1(
    run: Callable[..., str], read: Callable[..., Any], job: str
) -> None:
    run("jobs", "cancel", job)
    assert shown(run("jobs", "watch", job, code=1))["status"] == "cancelled"
    assert read("jobs", "watch", job, code=1)["status"] == "cancelled"


def test_models_are_listed_promoted_and_not_rolled_back_to_nothing(
    run: Callable[..., str], read: Callable[..., Any]
) -> None:
    served, versions = run("models", "list").split("\n\n")
    assert served.splitlines()[1].split()[0] == "demo"
    assert versions.splitlines()[0].split()[:3] == ["version", "aliases", "status"]
    assert versions.splitlines()[1].split()[1:3] == ["default", "ready"]
    (version,) = read("models", "list")["versions"]
    assert read("models", "list", "--base", version["id"])["versions"] == []
    assert read("models", "list", "--metadata", "owner:nobody")["versions"] == []
    assert run("models", "list", "--base", "nobody", code=2).startswith("sds-clip: base: ")
    assert read("models", "list", "--base", version["id"][:8])["versions"] == []
    said = run("models", "promote", version["id"][:8], "--reason", "again")
    assert "default" in said
    assert version["id"] in said
    assert run("models", "rollback", "--reason", "worse", code=2).startswith("sds-clip: ")


def test_promotion_that_waits_shows_who_serves_it(run: Callable[..., str], read: Callable[..., Any]) -> None:
    (version,) = read("models", "list")["versions"]
    promote = ["models", "promote", version["id"], "--reason", "again", "--wait", "60"]
    header, line = run(*promote).splitlines()[1:]
    assert header.split() == ["process", "state", "version", "generation", "error"]
    assert line.split()[1:] == ["serving", version["id"], "1"]
    assert read(*promote)["served_by_all"] is True
    assert "a number of seconds" in run(*promote[:-1], "301", code=2)


@pytest.mark.parametrize("processes", [None, [{"state": "failed", "error": "no base"}]])
def test_promotion_that_not_all_serve_after_the_wait_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], processes: Any
) -> None:
    shown = {"process": "host-1-ab", "version": "a", "generation": 1}
    listed = processes and [{**shown, **each} for each in processes]
    alias = {"name": "default", "version": "b", "generation": 2, "lock": None}
    answer = {**alias, "served_by_all": False, "processes": listed}
    with scripted(Answer(200, json.dumps(answer).encode())) as server:
        monkeypatch.setenv("SDS_CLIP_URL", server.url)
        assert exit_code(["models", "rollback", "--reason", "worse", "--wait", "30"]) == 1
        assert json.loads(server.asked[0].body) == {"reason": "worse", "wait_s": 30}
    said = "".join(capsys.readouterr())
    assert ("0 of 1" in said) == ("no base" in said) == (processes is not None)
    assert ("cannot read the reports" in said) == (processes is None)


def test_aliases_are_locked_and_unlocked(run: Callable[..., str], read: Callable[..., Any]) -> None:
    said = run("models", "lock", "--reason", "release freeze")
    assert "The alias default is locked." in said
    assert said.count("release freeze") == 1
    assert run("models", "list").splitlines()[-1] in said.splitlines()
    assert read("models", "lock", "default", "--reason", "again")["lock"]["why"] == "release freeze"
    assert "locked" not in run("models", "unlock", "--reason", "released")
    assert read("models", "list")["aliases"][0]["lock"] is None


def test_alias_is_removed(run: Callable[..., str], read: Callable[..., Any]) -> None:
    (version,) = read("models", "list")["versions"]
    run("models", "promote", version["id"], "--alias", "trial", "--reason", "try it")
    said = run("models", "remove-alias", "trial", "--reason", "the trial is over")
    assert f"The alias trial is removed. It pointed to version {version['id']}, which stays." in said
    assert [alias["name"] for alias in read("models", "list")["aliases"]] == ["default"]
    assert "cannot be removed" in run("models", "remove-alias", "default", "--reason", "no", code=2)


def test_what_is_not_there_is_one_line(run: Callable[..., str], tmp_path: Path) -> None:
    for command in (
        ["jobs", "show", "job_none"],
        ["models", "download", "0" * 64, "--out", str(tmp_path / "x.tar")],
        ["jobs", "list", "--url", "http://127.0.0.1:1"],
    ):
        said = run(*command, code=2)
        assert said.startswith("sds-clip: ")
        assert said.count("\n") == 1
    assert "http://127.0.0.1:1" in said


def test_a_job_is_submitted_from_a_file_and_found_by_its_name(
    run: Callable[..., str], read: Callable[..., Any], dataset: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"training_data: {dataset}\nobjective: clip\nsteps: 4\n")
    command = ["jobs", "submit", "--config", str(file)]
    estimate = read(*command, "--dry-run", "--set", "steps=6")["estimate"]
    assert estimate["steps"] == 6
    made = read(*command, "--name", "from-a-file")
    assert (made["name"], made["hyperparameters"]["steps"]) == ("from-a-file", 4)
    assert shown(run("jobs", "show", "from-a-file"))["job"] == made["id"]
    found = read("jobs", "list", "--name", "from-a", "--created-after", "2026-01-01")
    assert [job["id"] for job in found] == [made["id"]]
    assert read("jobs", "list", "--name", "from-a", "--created-before", "2026-01-01") == []
    assert "name" in run(*command, "--name", "from-a-file", code=2)
    assert "hyperparameters.steps" in run(*command, "--set", "steps=-1", code=2)


def test_a_running_job_whose_worker_is_silent_says_since_when() -> None:
    job = {"status": "running", "no_worker": False, "kind": "finetune", "worker_silent_since": 0.0}
    assert _status(job) == f"running (its worker has been silent since {moment(0.0)})"
    assert _status({**job, "worker_silent_since": None}) == "running"
