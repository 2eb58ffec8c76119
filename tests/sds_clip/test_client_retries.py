"""What is sent again, and what is not."""

import asyncio
import json

import httpx
import pytest

from sds_clip import AsyncClient, Client, ClientError, ConnectionFailed
from sds_clip.client import calls, connection, errors
from tests.sds_clip.scripted import Answer, scripted

BUSY = Answer(
    503, b'{"error": {"code": "unavailable", "message": "Later.", "param": null}}', {"Retry-After": "0"}
)
JOB = Answer(202, json.dumps({"id": "job_1", "kind": "finetune", "status": "queued"}).encode())


def test_a_busy_service_is_asked_again_and_no_more_than_so_often() -> None:
    with scripted(BUSY, BUSY, Answer(200, b'{"models": []}')) as server, Client(server.url) as client:
        assert client.models() == {"models": []}
        assert len(server.asked) == 3
    with scripted(BUSY) as server, Client(server.url) as client:
        with pytest.raises(errors.Unavailable, match=r"Later\."):
            client.models()
        assert len(server.asked) == connection.MAX_ATTEMPTS
    with scripted(BUSY) as server, Client(server.url, max_attempts=1) as client:
        with pytest.raises(errors.Unavailable):
            client.models()
        assert len(server.asked) == 1
    with pytest.raises(ValueError, match="max_attempts is 0"):
        Client(max_attempts=0)


def test_a_submission_whose_answer_is_lost_is_sent_again_under_the_same_key() -> None:
    with scripted(Answer(202, b"{", cut=True), BUSY, JOB) as server, Client(server.url) as client:
        assert client.finetune("ds_1").id == "job_1"
        keys = [asked.headers["idempotency-key"] for asked in server.asked]
        assert len(keys) == 3
        assert len(set(keys)) == 1
        client.finetune("ds_1")
        assert server.asked[-1].headers["idempotency-key"] != keys[0]


def test_the_awaited_client_sends_again_too() -> None:
    async def submit(url: str) -> str:
        async with AsyncClient(url) as client:
            return (await client.finetune("ds_1")).id

    with scripted(BUSY, JOB) as server:
        assert asyncio.run(submit(server.url)) == "job_1"
        assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1


def test_a_rollback_is_sent_once() -> None:
    with scripted(BUSY) as server, Client(server.url) as client:
        with pytest.raises(errors.Unavailable):
            client.rollback(reason="worse")
        assert len(server.asked) == 1
    with scripted(Answer(200, b"{", cut=True)) as server, Client(server.url) as client:
        with pytest.raises(ConnectionFailed) as raised:
            client.rollback(reason="worse")
        assert raised.value.reached
        assert len(server.asked) == 1


def test_an_error_that_time_does_not_mend_is_told_at_once() -> None:
    busy_for_long = Answer(429, BUSY.body, {"Retry-After": "3600"})
    without_date = Answer(503, BUSY.body)
    for answer in (busy_for_long, without_date, Answer(500, b"<html>"), Answer(404, b"[]")):
        with scripted(answer) as server, Client(server.url) as client:
            with pytest.raises(errors.of_status(answer.status)) as raised:
                client.models()
            assert raised.value.status == answer.status
            assert len(server.asked) == 1


def test_an_answer_that_is_not_json_is_an_error() -> None:
    with (
        scripted(Answer(200, b"<html>")) as server,
        Client(server.url) as client,
        pytest.raises(errors.ServerError, match="not JSON"),
    ):
        client.models()


def test_the_key_and_the_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(Answer(200, b'{"models": []}')) as server:
        monkeypatch.setenv("SDS_CLIP_URL", server.url)
        monkeypatch.setenv("SDS_CLIP_API_KEY", "secret")
        with Client() as client:
            client.models()
        with Client(api_key="other") as client:
            client.models()
        assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer secret", "Bearer other"]


def test_a_key_is_sent_without_the_white_space_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(Answer(200, b'{"models": []}')) as server:
        monkeypatch.setenv("SDS_CLIP_API_KEY", " sdsclip_x\r\n")
        with Client(server.url) as client:
            client.models()
        assert server.asked[0].headers["authorization"] == "Bearer sdsclip_x"


@pytest.mark.parametrize("key", ["sdsclip_x\ny", "sdsclip_x\0", "sdsclip_\u00fc", "\ud800"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ClientError) as raised:
        Client("http://127.0.0.1:1", api_key=key)
    assert str(raised.value) == "The API key (SDS_CLIP_API_KEY) holds a character that no key has."


def test_a_password_in_the_address_is_in_no_error() -> None:
    with scripted(Answer(502, b"<html>"), Answer(200, b"<html>"), Answer(200, b"{", cut=True)) as server:
        address = server.url.replace("://", "://me:s3cret@")
        with Client(address, max_attempts=1) as client, Client("http://me:s3cret@127.0.0.1:1") as nobody:
            for asked in (client, client, client, nobody):
                with pytest.raises(ClientError) as raised:
                    asked.models()
                assert "s3cret" not in str(raised.value)
                assert "http://127.0.0.1:" in str(raised.value)


def test_a_call_that_waits_may_take_longer_by_the_wait() -> None:
    timeout = connection.with_wait(httpx.Timeout(90, connect=10), calls.promote("v", {"wait_s": 300}).wait_s)
    assert (timeout.read, timeout.connect, timeout.write) == (390, 10, 90)
    assert connection.with_wait(httpx.Timeout(None), 300).read is None
    assert calls.post("models", "default", "rollback", json={"wait_s": None}).wait_s == 0
