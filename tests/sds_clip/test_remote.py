"""The commands that speak to a service, against a real one."""

import json
from pathlib import Path
from typing import Any

import pytest

from sds_clip import Client
from sds_clip.commands.jobs import _status, result_fields
from sds_clip.remote import moment
from tests.app.serverside import RunningServer
from tests.sds_clip.command_line import exit_code
from tests.sds_clip.scripted import Answer, scripted
from tests.sds_clip.transcript import test_transcript  # noqa: F401
from tests.training import save_coco


@pytest.fixture
def url(service: RunningServer, registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables name the service, the version that it serves, and the folder for data sets."""
    with Client(service.url) as client:
        version = client.model("default")["id"]
    names = {
        "SDS_CLIP_URL": service.url,
        "VERSION": version,
        "BEGINNING": version[:8],
        "REGISTERED": registered,
    }
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture
def pairs(tmp_path: Path) -> None:
    save_coco(tmp_path / "pairs")


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


def test_a_running_job_whose_worker_is_silent_says_since_when() -> None:
    job = {"status": "running", "no_worker": False, "kind": "finetune", "worker_silent_since": 0.0}
    assert _status(job) == f"running (its worker has been silent since {moment(0.0)})"
    assert _status({**job, "worker_silent_since": None}) == "running"


def test_a_job_says_what_it_waits_for() -> None:
    job = {"status": "queued", "no_worker": False, "kind": "finetune", "waits_for": "turn"}
    assert _status(job) == "queued (until a worker is free and no job of another key comes first)"
    assert _status({**job, "waits_for": None}) == "queued"
    assert _status({**job, "no_worker": True, "waits_for": "worker"}).startswith(
        "queued (no worker runs such"
    )
