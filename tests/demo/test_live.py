"""`make demo` against a whole system, with short jobs, and in full among the long tests."""

import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from sds_clip import Client
from sds_clip.demo import live
from tests.sds_clip.embedded import Running, until

SHORT = replace(
    live.TAGS,
    pairs=16,
    hyperparameters={**live.TAGS.hyperparameters, "steps": 1, "batch_size": 4, "score_draws": 1},
)
ENDLESS = replace(SHORT, hyperparameters={**SHORT.hyperparameters, "steps": 100_000})
needs_processes = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("live"))
    yield running
    running.close()


def run(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr("sys.argv", ["sds_clip.demo.live", "--url", url])
    live.main()


def group_match(printed: str) -> dict[str, float]:
    """The first figure of each row of the table."""
    rows = re.findall(r"^(before|control|placebo|teacher|chance) +([\d.]+) ", printed, re.MULTILINE)
    return {name: float(figure) for name, figure in rows}


def test_without_a_service_one_line_says_what_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="make run") as ended:
        run(monkeypatch, "http://127.0.0.1:1")
    assert str(ended.value).count("\n") == 0


def test_another_program_at_the_address_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.handle_request).start()
        with pytest.raises(SystemExit, match=r"501.*make run") as ended:
            run(monkeypatch, f"http://127.0.0.1:{other.server_port}")
    assert str(ended.value).count("\n") == 0


@pytest.mark.slow
@needs_processes
def test_what_is_no_better_is_refused_and_told_with_its_jobs_and_data(
    system: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "TAGS", SHORT)
    with Client(system.url) as client:
        before = client.model("default")["id"]
        run(monkeypatch, system.url)
        printed = capsys.readouterr().out
        jobs = {str(job.info["suffix"]): job.info for job in client.jobs()}
        assert client.model("default")["id"] == before
        assert client.promotions(alias="default")[0]["to_version"] == before
    assert list(group_match(printed)) == ["before", "control", "placebo", "teacher", "chance"]
    assert re.findall(r"^The gate (\w+) (\w+)\.", printed, re.MULTILINE) == [
        ("refused", "control"),
        ("refused", "placebo"),
        ("refused", "teacher"),
    ]
    assert {
        arm: (job["objective"], job["hyperparameters"]["score_by"]) for arm, job in jobs.items()
    } == live.ARMS
    assert {job["training_data"] for job in jobs.values()} == {jobs["control"]["training_data"]}
    assert jobs["teacher"]["metadata"] == jobs["placebo"]["metadata"] == {"control": jobs["control"]["id"]}
    for job in jobs.values():
        assert f"Submitted the job {job['name']}." in printed


@pytest.mark.slow
@needs_processes
def test_a_cancelled_job_ends_the_demo_with_one_line(
    system: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "TAGS", ENDLESS)
    with Client(system.url) as client:

        def cancel() -> None:
            until(lambda: client.jobs(status="running"))
            client.jobs(status="running")[0].cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(SystemExit, match="It was cancelled") as ended:
            run(monkeypatch, system.url)
        canceller.join()
    assert str(ended.value).count("\n") == 0


@pytest.mark.long
@needs_processes
def test_the_teacher_s_student_alone_is_promoted_and_rolled_back_under_load(
    system: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(system.url) as client:
        before = client.model("default")["id"]
        run(monkeypatch, system.url)
        printed = capsys.readouterr().out
        moves = [move["to_version"] for move in client.promotions(alias="default")][:2]
        teacher = client.jobs(name="demo-", status="succeeded")[0]
        assert client.model("default")["id"] == before
    assert moves == [before, teacher.version]
    found = group_match(printed)
    assert found["teacher"] > 90
    assert max(found["before"], found["control"], found["placebo"]) < 75
    assert re.findall(r"^The gate (\w+) (\w+)\.", printed, re.MULTILINE) == [
        ("refused", "control"),
        ("refused", "placebo"),
        ("promoted", "teacher"),
    ]
    assert f"by {str(teacher.version)[:12]}" in printed
    assert "Failed: 0." in printed
