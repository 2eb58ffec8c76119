"""A real server process under load: SIGTERM, a client that hangs up, and memory."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sds_clip.app.keys import create_key
from tests.app.conftest import base64_of, png
from tests.app.serverside import RunningServer, free_port, running_server
from tests.worker.waiting import until

CLIENTS = 16
BODY = {"images": [base64_of(png(seed=1))], "texts": ["a red circle", "a blue square"]}


@pytest.fixture
def server(small_reference: str, tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path, "--model", small_reference, "--precision", "float32") as server:
        yield server


def connected(server: RunningServer) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


async def ask_until_refused(server: RunningServer, answers: list[tuple[float, int]]) -> None:
    """Send one request after another on one connection; note when each was sent and its status."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        while True:
            sent_at = time.monotonic()
            try:
                answer = await client.post("/match", json=BODY)
            except httpx.ConnectError:
                return
            answers.append((sent_at, answer.status_code))
            if answer.status_code != httpx.codes.OK:
                return


async def test_sigterm_under_load_drops_no_accepted_request(server: RunningServer) -> None:
    answers: list[tuple[float, int]] = []
    clients = [asyncio.create_task(ask_until_refused(server, answers)) for _ in range(CLIENTS)]
    while len(answers) < 20 * CLIENTS:
        await asyncio.sleep(0.01)
    terminated_at = time.monotonic()
    server.terminate()
    await asyncio.gather(*clients)  # a connection reset in the middle of a request raises here
    # What was sent well before the signal was accepted; what came later was answered or turned away.
    assert {status for sent_at, status in answers if sent_at < terminated_at - 0.5} == {200}
    assert {status for _, status in answers} <= {200, 503}
    assert sum(status == httpx.codes.SERVICE_UNAVAILABLE for _, status in answers) >= 1
    assert server.process.wait(60) == 0


async def test_requests_in_flight_at_sigterm_are_answered(server: RunningServer) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        bodies = [{**BODY, "texts": [f"text {n} of {asked}" for n in range(1000)]} for asked in range(4)]
        asked = [asyncio.create_task(client.post("/match", json=body)) for body in bodies]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)  # so the others have arrived
        server.terminate()
        answers = await asyncio.gather(*asked)
    for answer in answers:
        assert answer.status_code == 200
        assert len(answer.json()["results"][0]["scores"]) == 1000


def test_not_ready_while_draining_but_alive(server: RunningServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/ready").status_code == 200
        server.terminate()
        statuses = set()
        with contextlib.suppress(httpx.TransportError):
            for _ in range(100):
                statuses.add(client.get("/ready").status_code)
                time.sleep(0.02)
    assert 503 in statuses


def test_head_on_health_routes_is_get_without_the_body(server: RunningServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        for path in ("/health", "/ready", "/metrics"):
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert set(head.headers) == set(got.headers)
            assert head.headers["Content-Type"] == got.headers["Content-Type"]
        server.terminate()
        while (ready := client.head("/ready").status_code) == 200:  # until the signal has come
            pass
        assert (ready, client.head("/health").status_code) == (503, 200)


def test_metrics_may_have_an_address_of_their_own(tmp_path: Path, small_reference: str) -> None:
    port, key = free_port(), create_key(tmp_path / "keys.json", "phone", ["infer"])
    options = {
        "SDS_CLIP_METRICS_ADDRESS": f"127.0.0.1:{port}",
        "SDS_CLIP_KEYS_FILE": str(tmp_path / "keys.json"),
    }
    with running_server(tmp_path, "--model", small_reference, **options) as server:
        side = f"http://127.0.0.1:{port}"
        assert "sds_clip_requests_total" in httpx.get(f"{side}/metrics").text
        assert (
            httpx.get(f"{side}/ready").json()["status"] == httpx.get(f"{server.url}/ready").json()["status"]
        )
        assert httpx.get(f"{side}/models").status_code == 404
        foreign = httpx.get(f"{side}/metrics", headers={"Host": "evil.example"})
        assert (foreign.status_code, foreign.headers["X-Content-Type-Options"]) == (403, "nosniff")
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert (
            httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        )
        server.terminate()
        assert server.process.wait(60) == 0


def test_address_of_the_metrics_that_is_taken_stops_the_start_in_one_line(
    tmp_path: Path, small_reference: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        serve = [sys.executable, "-m", "sds_clip", "serve", "--model", small_reference]
        own = {"SDS_CLIP_METRICS_ADDRESS": address, "SDS_CLIP_DATA_DIR": str(tmp_path / "data")}
        environment = {**os.environ, **own, "SDS_CLIP_PORT": str(free_port())}
        ended = subprocess.run(serve, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "Set SDS_CLIP_METRICS_ADDRESS to a free port of this machine." in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_client_that_hangs_up_mid_upload_harms_nobody(server: RunningServer) -> None:
    for _ in range(20):
        with connected(server) as connection:
            connection.sendall(
                b"POST /match HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100000\r\n\r\n" + b'{"images": ["' + b"A" * 5000
            )
    answer = httpx.post(f"{server.url}/match", json=BODY)
    assert answer.status_code == 200
    assert "Traceback" not in server.log.read_text()


def test_endless_headers_are_cut_off(server: RunningServer) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET /models HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        received = b""
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                connection.sendall(b"a" * 2**16)
            received = connection.recv(1000)
    assert received == b"" or received.startswith(b"HTTP/1.1 400")
    assert httpx.get(f"{server.url}/health").status_code == 200


@pytest.mark.long
def test_endless_trailers_are_cut_off(server: RunningServer) -> None:
    with connected(server) as connection:
        connection.sendall(
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        )
        with pytest.raises(ConnectionError):
            connection.sendall((b"A: " + b"b" * 2**14 + b"\r\n") * 2000)
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_client_that_hangs_up_while_waiting_is_not_computed_for(server: RunningServer) -> None:
    asked = 0
    while '"status": 499' not in server.log.read_text():
        assert asked < 200
        texts = ",".join(f'"never seen {n} of {asked}"' for n in range(1000))
        body = f'{{"texts": [{texts}]}}'.encode()
        with connected(server) as connection:
            connection.sendall(
                b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            time.sleep(0.01 * (asked % 10))  # sooner or later than it is computed
        asked += 1
        time.sleep(0.1)
    until(lambda: "admitted_items 0" in httpx.get(f"{server.url}/metrics").text)


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_memory_stays_flat_over_many_requests(server: RunningServer) -> None:
    def ask(count: int, first: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for number in range(first, first + count):
                body = {"images": [base64_of(png(seed=number))], "texts": [f"unique {number}"]}
                assert client.post("/match", json=body).status_code == 200

    ask(300, 0)
    before = resident_bytes(server.process.pid)
    ask(600, 300)
    assert resident_bytes(server.process.pid) - before < 16 * 2**20
