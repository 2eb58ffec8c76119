"""The middleware over a small app, called through a real server where sockets matter."""

import asyncio
import contextlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from starlette.testclient import TestClient

from sds_clip.app import logs
from sds_clip.app.edge import middleware, protocol, responses
from sds_clip.app.edge.protocol import BoundedHeadersProtocol
from sds_clip.app.errors import InternalError, InvalidImage, Overloaded
from sds_clip.app.metrics import Metrics
from tests.app.changed import changed
from tests.worker.waiting import until

MAX_BODY_BYTES = 200_000


class Inner(BaseModel):
    size: int


class Item(BaseModel):
    model_config = {"extra": "forbid"}

    texts: list[str | Inner] = []
    count: int = Field(0, le=5)
    options: Inner | None = None


def _app(**changes: object) -> FastAPI:
    limits = {
        "max_body_bytes": MAX_BODY_BYTES,
        "max_buffered_bytes": 500_000,
        "body_timeout_s": 0.5,
        **changes,
    }
    app = FastAPI()

    @app.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    @app.post("/datasets")
    async def upload(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    @app.post("/items/{name}")
    async def items(name: str, item: Item) -> int:
        return item.count

    @app.get("/fail")
    async def fail(kind: str) -> None:
        if kind == "image":
            raise InvalidImage("Broken.", code="image_corrupt", param="images", index=2)
        if kind == "busy":
            raise Overloaded("Full.", retry_after_s=7)
        if kind == "internal":
            raise InternalError("Broken here.")
        raise RuntimeError("the secret detail")

    responses.install_error_handlers(app)
    app.state.metrics = Metrics()
    app.state.key_ring = None
    with changed(**limits) as settings:
        middleware.install(app, settings, app.state.metrics)
    return app


def _client(**changes: object) -> TestClient:
    return TestClient(_app(**changes), base_url="http://localhost:8000")


@contextmanager
def _served(app: FastAPI, http: str | type[asyncio.Protocol] = "httptools") -> Iterator[int]:
    """The app behind uvicorn on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=http, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def _connected(app: FastAPI, http: str | type[asyncio.Protocol] = "httptools") -> Iterator[socket.socket]:
    """A client's connection to it."""
    with (
        _served(app, http) as port,
        socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
    ):
        yield connection


def _head(path: str, length: int, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode()


def _upload(length: int) -> bytes:
    return _head("/datasets", length, "Content-Type: multipart/form-data; boundary=x")


async def _chunks(size_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(0, size_bytes, 50_000):
        yield b"x" * 50_000


# Ids and logs


def test_sane_request_id_is_taken_over() -> None:
    answer = _client().post("/size", content=b"abc", headers={"X-Request-Id": "job-7.a_B"})

    assert answer.json() == 3
    assert answer.headers["X-Request-Id"] == "job-7.a_B"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", 'a"b'])
def test_odd_request_id_is_replaced(given: str) -> None:
    answer = _client().post("/size", headers={"X-Request-Id": given})

    assert len(answer.headers["X-Request-Id"]) == 32
    assert int(answer.headers["X-Request-Id"], 16) >= 0


@pytest.mark.parametrize("path", ["/fail?kind=image", "/fail?kind=x", "/nowhere"])
def test_error_carries_the_request_id_once(path: str) -> None:
    answer = _client().get(path, headers={"X-Request-Id": "abc"})

    assert answer.headers.get_list("x-request-id") == ["abc"]


def test_access_log_names_the_route_and_never_the_query_or_body(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app")
    caplog.handler.setFormatter(logs.JsonFormatter())

    answer = _client().post("/items/cat?token=s3cret", json={"count": 4}, headers={"X-Request-Id": "abc"})

    assert answer.json() == 4
    lines = map(json.loads, caplog.text.splitlines())
    (line,) = (line for line in lines if line["logger"] == "app.access")
    assert line["route"] == "/items/{name}"
    assert line["status"] == 200
    assert line["bytes_in"] == len(b'{"count":4}')
    assert line["request_id"] == "abc"
    assert line["duration_ms"] > 0
    assert "s3cret" not in caplog.text
    assert "cat" not in caplog.text


@pytest.mark.parametrize(
    ("path", "code"), [("/fail?kind=image", "image_corrupt"), ("/nowhere", "not_found"), ("/size", None)]
)
def test_access_log_names_the_error(path: str, code: str | None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.access")
    _client().post(path) if code is None else _client().get(path)
    (record,) = (record for record in caplog.records if record.name == "app.access")
    assert record.fields.get("code") == code
    assert ("param" in record.fields) is (code is not None)


def test_answers_are_counted_by_route_and_status() -> None:
    client = _client()
    client.post("/size")
    client.get("/nowhere/at/all")
    client.get("/fail?kind=x")

    metrics = client.app.state.metrics.render().decode()

    assert 'sds_clip_requests_total{route="/size",status="200"} 1.0' in metrics
    assert 'sds_clip_requests_total{route="unmatched",status="404"} 1.0' in metrics
    assert 'sds_clip_requests_total{route="/fail",status="500"} 1.0' in metrics


# Errors


def test_service_error_is_the_one_body() -> None:
    answer = _client().get("/fail?kind=image")

    error = {"type": "invalid_request_error", "code": "image_corrupt", "message": "Broken."}
    assert (answer.status_code, answer.json()) == (422, {"error": {**error, "param": "images", "index": 2}})


def test_retry_after_is_a_header() -> None:
    answer = _client().get("/fail?kind=busy")

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


def test_unforeseen_error_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    answer = _client().get("/fail?kind=x")

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    assert "the secret detail" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("body", "param", "index"),
    [
        ({"texts": ["a", "b", 3]}, "texts", 2),
        ({"texts": [{"size": "s3cret"}]}, "texts", 0),
        ({"count": "s3cret"}, "count", None),
        ({"options": {"size": "s3cret"}}, "options.size", None),
        ({"texts": "s3cret"}, "texts", None),
        ({"wrong_name": "s3cret"}, "wrong_name", None),
        ({"s3cret \ud800": 1}, None, None),
        ([], None, None),
    ],
)
def test_invalid_field_is_named_and_its_value_not_repeated(
    body: object, param: str | None, index: int | None
) -> None:
    answer = _client().post(
        "/items/x", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_request")
    assert (error["param"], error.get("index")) == (param, index)
    assert "s3cret" not in answer.text
    assert error["message"].endswith(".")


# Host and Origin


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost"},
        {"Host": "LocalHost:8000"},
        {"Host": "[::1]:8000"},
        {"Host": "127.0.0.1:1"},
        {"Host": "clip.example:80"},
        {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Host": "clip.example", "Origin": "https://clip.example"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_own_programs_and_own_pages_are_let_in(headers: dict[str, str]) -> None:
    client = _client(allowed_hosts=["Clip.Example"])

    assert client.post("/size", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8000"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost:8000@evil.example"},
        {"Host": ""},
        {"Host": "0.0.0.0:8000"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://localhost:8000.evil.example"},
        {"Origin": "file://localhost:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        [("Host", "localhost"), ("Host", "evil.example")],
        [("Origin", "http://localhost:8000"), ("Origin", "http://evil.example")],
    ],
    ids=str,
)
def test_request_that_a_foreign_page_could_send_is_refused(headers: dict[str, str]) -> None:
    answer = _client().post("/size", headers=headers)

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] in ("foreign_host", "foreign_origin")


def test_with_keys_any_host_is_served() -> None:
    answer = _client(keys_file="keys.json").post("/size", headers={"Host": "clip.example"})

    assert answer.status_code == 200


# Bodies


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_announced_excess_is_refused_and_the_connection_lives(http: str) -> None:
    app = _app(body_timeout_s=30)
    with _served(app, http) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(3):
            answer = client.post("/size", content=b"x" * (MAX_BODY_BYTES * 3))
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
            assert client.post("/size", content=b"x" * MAX_BODY_BYTES).json() == MAX_BODY_BYTES
        until(lambda: app.state.body_budget.used == 0)


def test_absurd_announcement_is_answered_before_the_body_and_cut_off() -> None:
    with _connected(_app()) as connection:
        connection.sendall(_head("/size", 99999999999))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


def test_client_that_asks_first_never_sends_the_excess() -> None:
    with _connected(_app()) as connection:
        connection.sendall(_head("/size", 300_000, "Expect: 100-continue"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


async def _post_chunks(port: int, size_bytes: int) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        return await client.post("/size", content=_chunks(size_bytes))


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_chunked_body_is_counted_as_it_comes(http: str) -> None:
    app = _app(body_timeout_s=30)
    with _served(app, http) as port:
        fitting = asyncio.run(_post_chunks(port, MAX_BODY_BYTES))
        excess = asyncio.run(_post_chunks(port, 10 * MAX_BODY_BYTES))
        until(lambda: app.state.body_budget.used == 0)

    assert fitting.json() == MAX_BODY_BYTES
    assert (excess.status_code, excess.json()["error"]["code"]) == (413, "body_too_large")


def test_bodies_over_the_common_budget_are_turned_away_and_the_others_answered() -> None:
    app = _app(max_buffered_bytes=250_000, body_timeout_s=10)
    with _served(app) as port, socket.create_connection(("127.0.0.1", port), timeout=5) as first:
        first.sendall(_head("/size", 150000))
        first.sendall(b"x" * 149_999)
        until(lambda: app.state.body_budget.used >= 149_999)

        second = httpx.post(f"http://127.0.0.1:{port}/size", content=b"x" * 150_000)
        assert (second.status_code, second.json()["error"]["code"]) == (503, "buffers_full")
        assert second.headers["Retry-After"] == "1"

        first.sendall(b"x")
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        third = httpx.post(f"http://127.0.0.1:{port}/size", content=b"x" * 150_000)
        assert third.json() == 150_000
        until(lambda: app.state.body_budget.used == 0)


def test_body_that_drips_in_is_timed_out() -> None:
    app = _app(body_timeout_s=0.3)
    with _connected(app) as connection:
        connection.sendall(_head("/size", 1000))
        answer = _answer_to_drips(connection, b"x")
        until(lambda: app.state.body_budget.used == 0)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_timeout" in answer
    assert b"connection: close" in answer


def _answer_to_drips(connection: socket.socket, data: bytes) -> bytes:
    """Send the same data every 0.1 s until there is an answer."""
    connection.settimeout(0.1)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        connection.sendall(data)
        with contextlib.suppress(TimeoutError):
            return connection.recv(65536)
    raise AssertionError("there was no answer")


def _whole_answer(connection: socket.socket) -> bytes:
    """One answer with its body, which may come in any number of parts."""
    answer = b""
    while (head := answer.partition(b"\r\n\r\n"))[1] == b"" or len(head[2]) < _length(head[0]):
        part = connection.recv(65536)
        assert part, answer
        answer += part
    return answer


def _length(head: bytes) -> int:
    [length] = re.findall(rb"content-length: (\d+)", head)
    return int(length)


def test_upload_that_drips_in_is_ended() -> None:
    with _connected(_app(body_timeout_s=1)) as connection:
        connection.sendall(_upload(10**9))
        answer = _answer_to_drips(connection, b"x")

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"upload_too_slow" in answer
    assert b"connection: close" in answer


def test_upload_at_the_minimum_rate_may_take_longer_than_other_bodies() -> None:
    app = _app(body_timeout_s=2, min_upload_bytes_per_s=10)
    with _connected(app) as connection:
        connection.sendall(_upload(400))
        for _ in range(20):
            time.sleep(0.15)  # the slow client itself: 3 s in all
            connection.sendall(b"x" * 20)
        answer = _whole_answer(connection)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n400")


def test_upload_that_was_fast_may_not_stand_still_for_longer() -> None:
    with _connected(_app(body_timeout_s=0.5)) as connection:
        connection.sendall(_upload(10**9) + bytes(20_000_000))  # five minutes' worth
        answer = _whole_answer(connection)

    assert b"upload_too_slow" in answer


def test_upload_that_takes_too_long_in_all_is_ended() -> None:
    app = _app(body_timeout_s=60, min_upload_bytes_per_s=1, max_upload_time_s=1)
    with _connected(app) as connection:
        connection.sendall(_upload(10**9))
        answer = _answer_to_drips(connection, b"x" * 1000)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"upload_timeout" in answer


def test_body_that_goes_on_after_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "UNREAD_BODY_TIMEOUT_S", 0.5)
    with _connected(_app(), BoundedHeadersProtocol) as connection:
        connection.sendall(_head("/nowhere", 100000))
        assert _whole_answer(connection).startswith(b"HTTP/1.1 404 ")

        with contextlib.suppress(ConnectionError):
            assert _answer_to_drips(connection, b"x") == b""


def test_body_that_ends_after_its_answer_leaves_the_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "UNREAD_BODY_TIMEOUT_S", 0.5)
    with _connected(_app(), BoundedHeadersProtocol) as connection:
        connection.sendall(_head("/nowhere", 3))
        assert _whole_answer(connection).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"abc")
        time.sleep(1)  # twice the time after which an unread body would have closed the connection
        connection.sendall(_head("/size", 0))

        assert _whole_answer(connection).startswith(b"HTTP/1.1 200 ")


def test_client_that_hangs_up_mid_upload_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.access")
    app = _app(body_timeout_s=10)
    with _served(app) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(_head("/size", 100000))
            connection.sendall(b"x" * 60_000)
            until(lambda: app.state.body_budget.used >= 60_000)
        until(lambda: app.state.body_budget.used == 0)
        assert httpx.post(f"http://127.0.0.1:{port}/size", content=b"abc").json() == 3

    gone = caplog.records[0]
    assert gone.fields["status"] == 499
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_slow_answer_is_not_a_slow_body() -> None:
    app = _app(body_timeout_s=0.1)

    @app.post("/think")
    async def think(request: Request) -> int:
        size = len(await request.body())
        with contextlib.suppress(TimeoutError):  # Waits for a hang-up, as whoever watches for one does.
            await asyncio.wait_for(request.receive(), 0.3)
        return size

    assert TestClient(app, base_url="http://localhost").post("/think", content=b"abc").json() == 3
