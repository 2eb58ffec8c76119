"""A job's events over connections that come and go."""

import json

import pytest

from sds_clip import Client
from sds_clip.client import errors, events
from sds_clip.client.events import Follower, Frame
from sds_clip.client.sync_http import Http
from tests.sds_clip.scripted import Answer, scripted

STREAM = {"Content-Type": "text/event-stream"}
SEPARATOR = "a caption\u2028with a separator"


def frame(name: str, data: dict[str, object], number: int | None = None) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


FIRST = b"retry: 2000\n\n" + frame("status", {"id": 1}, 1) + frame("message", {"id": 2, "of": SEPARATOR}, 2)
PROGRESS = frame("progress", {"status": "running"})
REST = (
    b": still here\n\n" + frame("metrics", {"id": 3}, 3) + PROGRESS + frame("done", {"status": "succeeded"})
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_frames_do_not_depend_on_how_the_bytes_arrive(size: int) -> None:
    follower = Follower("job_1")
    stream = FIRST + REST
    frames = [
        found
        for start in range(0, len(stream), size)
        for found in follower.feed(stream[start : start + size])
    ]
    assert frames == [
        Frame("status", {"id": 1}, 1),
        Frame("message", {"id": 2, "of": SEPARATOR}, 2),
        Frame("metrics", {"id": 3}, 3),
        Frame("progress", {"status": "running"}),
        Frame("done", {"status": "succeeded"}),
    ]
    assert follower.ended


def test_a_connection_that_is_cut_is_taken_up_after_the_last_whole_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "_PAUSE_S", 0.01)
    cut = Answer(200, FIRST + b"id: 3\nevent: metr", STREAM, cut=True)
    away = Answer(503, b'{"error": {"code": "unavailable", "message": "Ending."}}', {"Retry-After": "0"})
    ended_early = Answer(200, b"retry: 2000\n\n", STREAM)
    with scripted(cut, away, ended_early, Answer(200, REST, STREAM)) as server:
        http = Http(server.url, None, 10)
        names = [found.id or found.name for found in http.follow(Follower("job_1"))]
        http.close()
        assert names == [1, 2, 3, "progress", "done"]
        assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, "2", "2", "2"]


def test_a_job_that_has_ended_meanwhile_is_not_waited_for() -> None:
    job = {"id": "job_1", "kind": "finetune", "status": "succeeded"}
    with (
        scripted(
            Answer(200, json.dumps(job).encode()), Answer(204, b""), Answer(200, json.dumps(job).encode())
        ) as server,
        Client(server.url) as client,
    ):
        assert client.job("job_1").wait().status == "succeeded"
        assert len(server.asked) == 3


def test_a_job_that_is_not_there_is_an_error_at_once() -> None:
    missing = Answer(404, b'{"error": {"code": "job_not_found", "message": "No job."}}')
    with scripted(missing) as server:
        http = Http(server.url, None, 10)
        with pytest.raises(errors.NotFound):
            list(http.follow(Follower("job_1")))
        http.close()
        assert len(server.asked) == 1


def test_a_service_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_PAUSE_S", 0.01)
    monkeypatch.setattr(events, "PATIENCE_S", 0.2)
    http = Http("http://127.0.0.1:1", None, 10)
    with pytest.raises(errors.ConnectionFailed):
        list(http.follow(Follower("job_1")))
    http.close()
