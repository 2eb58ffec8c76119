"""`make demo` against a whole system, with short jobs, and in full among the long tests."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from sds_clip import Client, ClientError, Job
from sds_clip.demo import live
from tests.sds_clip.embedded import Running, until
from tests.sds_clip.scripted import Answer, scripted

SHORT = replace(
    live.TAGS,
    pairs=16,
    hyperparameters={**live.TAGS.hyperparameters, "steps": 1, "batch_size": 4, "score_draws": 1},
)
ENDLESS = replace(SHORT, hyperparameters={**SHORT.hyperparameters, "steps": 100_000})
SERVICE = b'{"info": {"title": "SDS-CLIP"}}'
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


def test_a_password_in_the_address_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (
        "http://me:s3cret@127.0.0.1:1",
        "http://me:s3cret/x@127.0.0.1",
        "http://me:s3cret@h:port",
    ):
        with pytest.raises(SystemExit) as ended:
            run(monkeypatch, address)
        assert "s3cret" not in str(ended.value)
        assert str(ended.value).count("\n") == 0


def test_another_program_is_not_sent_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS_CLIP_API_KEY", "sdsclip_x")
    for answer in (Answer(body=b'{"status": "ok"}'), Answer(body=b"<html>"), Answer(body=b"[]"), Answer(404)):
        with scripted(answer) as other:
            with pytest.raises(SystemExit) as ended:
                run(monkeypatch, other.url)
            assert str(ended.value) == f"{other.url} is no SDS-CLIP service."
            assert ["authorization" in asked.headers for asked in other.asked] == [False]


def test_what_a_service_says_against_the_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    error = b'{"error": {"code": "foreign_host", "message": "Use localhost.", "param": null}}'
    with scripted(Answer(403, error)) as server, pytest.raises(SystemExit, match=r"^Use localhost\.$"):
        run(monkeypatch, server.url)


def test_the_first_request_and_the_rest_go_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with scripted(Answer(body=SERVICE), Answer(body=b'{"models": []}')) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(SystemExit, match="The demo model is not in service"):
            run(monkeypatch, "http://service.invalid")
        paths = [asked.path for asked in proxy.asked]
    assert paths == ["http://service.invalid/openapi.json", "http://service.invalid/models?limit=20"]


def test_without_a_valid_key_the_demo_says_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = b'{"error": {"code": "unauthorized", "message": "Send a valid API key.", "param": null}}'
    with (
        scripted(Answer(body=SERVICE), Answer(401, error)) as server,
        pytest.raises(SystemExit, match=r"^Send a valid API key\. .* set SDS_CLIP_API_KEY\.$"),
    ):
        run(monkeypatch, server.url)
    monkeypatch.setattr("sys.argv", ["sds_clip.demo.live", "--help"])
    with pytest.raises(SystemExit):
        live.main()
    told = " ".join(capsys.readouterr().out.split())
    assert "set SDS_CLIP_API_KEY" in told
    assert "The demo asks for p < 0.001 in place of 0.05, because three jobs are tested." in told


def test_a_version_that_does_not_answer_is_told_with_its_error() -> None:
    answers = [
        {"model": {}, "results": [{"index": 0, "probabilities": [0.9, 0.1]}]},
        {"name": "ab" * 32, "error": {"code": "version_damaged", "message": "It is damaged."}},
    ]
    answer = Answer(body=json.dumps({"answers": answers}).encode())
    with (
        scripted(answer) as server,
        Client(server.url) as client,
        pytest.raises(ClientError, match=r"^The version abababababab did not answer\. It is damaged\.$"),
    ):
        live._probabilities(client, ["default", "ab" * 32])


def standing_on(version: str, generation: int) -> Answer:
    alias = {"name": "default", "version": version, "generation": generation}
    return Answer(body=json.dumps({"aliases": [{**alias, "name": "other"}, alias]}).encode())


def rolled_back(*script: Answer) -> list[object]:
    """The bodies of the rollbacks of a demo whose job has made version `mine`."""
    job = Answer(body=b'{"id": "job_1", "result_version": "mine"}')
    with scripted(job, job, *script) as server, Client(server.url) as client:
        jobs: dict[str, Job] = {}
        with live._rolled_back(client, jobs):
            jobs["teacher"] = client.job("job_1")
        return [json.loads(asked.body) for asked in server.asked if asked.method == "POST"]


def test_what_others_promoted_meanwhile_is_not_rolled_back() -> None:
    assert rolled_back(standing_on("theirs", 4)) == []
    (body,) = rolled_back(standing_on("mine", 5), Answer(), standing_on("theirs", 6))
    assert body == {"reason": "The demo ends.", "expected_generation": 5, "wait_s": 60}


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
