"""A job's events over connections that come and go."""

import json

import pytest

from sds_clip import Client, Job
from sds_clip.client import connection, errors
from tests.sds_clip.scripted import Answer, scripted

STREAM = {"Content-Type": "text/event-stream"}
SEPARATOR = "a caption\u2028with a separator"
JOB = Answer(200, json.dumps({"id": "job_1", "kind": "finetune", "status": "succeeded"}).encode())


def frame(name: str, data: dict[str, object], number: int | None = None) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


FIRST = b"retry: 2000\n\n" + frame("status", {"id": 1}, 1) + frame("message", {"id": 2, "of": SEPARATOR}, 2)
PROGRESS = frame("progress", {"status": "running"})
REST = (
    b": still here\n\n" + frame("metrics", {"id": 3}, 3) + PROGRESS + frame("done", {"status": "succeeded"})
)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RECONNECT_PAUSE_S", 0.01)


def the_job(client: Client) -> Job:
    return client.job("job_1")


@pytest.mark.usefixtures("no_pause")
def test_a_connection_that_is_cut_is_taken_up_after_the_last_whole_event() -> None:
    cut = Answer(200, FIRST + b"id: 3\nevent: metr", STREAM, cut=True)
    away = Answer(503, b'{"error": {"code": "unavailable", "message": "Ending."}}', {"Retry-After": "0"})
    ended_early = Answer(200, b"retry: 2000\n\n", STREAM)
    with (
        scripted(JOB, cut, away, ended_early, Answer(200, REST, STREAM)) as server,
        Client(server.url) as client,
    ):
        assert list(the_job(client).events()) == [{"id": 1}, {"id": 2, "of": SEPARATOR}, {"id": 3}]
        assert [asked.headers.get("last-event-id") for asked in server.asked[1:]] == [None, "2", "2", "2"]


def test_events_after_a_number_are_asked_for() -> None:
    with scripted(JOB, Answer(200, REST, STREAM)) as server, Client(server.url) as client:
        assert list(the_job(client).events(after=2)) == [{"id": 3}]
        assert server.asked[1].path == "/jobs/job_1/events?after=2"


def test_a_job_that_has_ended_meanwhile_is_not_waited_for() -> None:
    with scripted(JOB, Answer(204, b""), JOB) as server, Client(server.url) as client:
        assert the_job(client).wait().status == "succeeded"
        assert len(server.asked) == 3


def test_waiting_shows_progress_until_the_job_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {"status": "running", "stage": "training", "progress": {"step": 3, "steps": 4}}
    stream = frame("status", {"id": 1}, 1) + frame("progress", shown) + frame("done", {})
    with scripted(JOB, Answer(200, stream, STREAM), JOB) as server, Client(server.url) as client:
        assert the_job(client).wait(progress=True).status == "succeeded"
    assert "finetune: training" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pause")
def test_a_job_that_ends_in_time_is_waited_for_over_a_restart(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"id": "job_1", "kind": "finetune", "stage": "training", "progress": {"step": 3, "steps": 4}}
    running, ended = (
        Answer(200, json.dumps({**record, "status": status}).encode()) for status in ("running", "succeeded")
    )
    away = Answer(503, b'{"error": {"code": "unavailable", "message": "Ending."}}')
    with scripted(running, running, away, ended) as server, Client(server.url) as client:
        assert the_job(client).wait(timeout=60, progress=True).status == "succeeded"
        assert [asked.path for asked in server.asked] == ["/jobs/job_1"] * 4
    assert "finetune: training" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pause")
def test_a_service_that_is_away_when_the_time_is_up_is_an_error_of_the_connection() -> None:
    away = Answer(503, b'{"error": {"code": "unavailable", "message": "Ending."}}')
    with scripted(JOB, away) as server, Client(server.url) as client, pytest.raises(errors.Unavailable):
        the_job(client).wait(timeout=0.05)


def test_a_job_that_is_not_there_is_an_error_at_once() -> None:
    missing = Answer(404, b'{"error": {"code": "job_not_found", "message": "No job."}}')
    with scripted(JOB, missing) as server, Client(server.url) as client:
        with pytest.raises(errors.NotFound):
            list(the_job(client).events())
        assert len(server.asked) == 2


def test_an_answer_that_is_no_event_stream_is_an_error_at_once() -> None:
    with scripted(JOB, Answer(200, b"<html>", {"Content-Type": "text/html"})) as server:
        with Client(server.url) as client, pytest.raises(errors.ServerError, match="event stream"):
            list(the_job(client).events())
        assert len(server.asked) == 2


@pytest.mark.usefixtures("no_pause")
def test_a_service_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE_S", 0.2)
    with scripted(JOB) as server:
        client = Client(server.url)
        job = the_job(client)
    with client, pytest.raises(errors.ConnectionFailed):
        list(job.events())


@pytest.mark.usefixtures("no_pause")
def test_changes_are_followed_over_a_lost_connection() -> None:
    first = frame("alias", {"name": "default"}, 5) + frame("job", {"id": "job_1"}, 7)
    second = frame("reset", {}, 9)
    with (
        scripted(Answer(200, first, STREAM, cut=True), Answer(200, second, STREAM)) as server,
        Client(server.url) as client,
    ):
        following = client.changes()
        assert [next(following) for _ in range(3)] == [
            ("alias", {"name": "default"}),
            ("job", {"id": "job_1"}),
            ("reset", {}),
        ]
        assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, "7"]


def test_curves_are_asked_for_by_name() -> None:
    curves = Answer(200, b'{"curves": {"loss": {"steps": [1], "values": [0.5]}}}')
    with scripted(JOB, curves) as server, Client(server.url) as client:
        assert the_job(client).curves("loss", "lr", points=50) == {"loss": {"steps": [1], "values": [0.5]}}
        assert server.asked[1].path == "/jobs/job_1/curves?names=loss&names=lr&points=50"
