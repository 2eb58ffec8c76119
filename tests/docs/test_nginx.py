"""The nginx of the docs in front of real services: what passes, when it passes, and what nginx answers itself."""

import contextlib
import http.client
import itertools
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sds_clip.app.errors import BodyTooLarge, ServiceError, Unavailable, body
from sds_clip.app.keys import create_key
from sds_clip.app.store import Store
from sds_clip.app.store.records import Lease, NewJob
from sds_clip.app.store.states import JobKind
from tests.app.conftest import base64_of, png
from tests.app.datasets.archives import file_names, tar_header
from tests.app.datasets.test_routes_streaming import CHUNK, FORM, HEAD, MB, TAIL
from tests.app.jobs.streamed import CONFIG
from tests.app.jobs.test_stream import STREAM, frames
from tests.app.serverside import RunningServer, running_server
from tests.docs.nginx import Proxy, needs_nginx, running_nginx
from tests.worker.waiting import until

pytestmark = needs_nginx
TIMEOUT_S = 60
MAX_UPLOAD_MB, MAX_BODY_BYTES = 80, 2 * MB
MATCH = {"images": [base64_of(png())], "texts": ["a cat", "a dog"]}


class Behind:
    """A service with a key and a database, and nginx in front of it."""

    def __init__(self, folder: Path, server: RunningServer, proxy: Proxy, key: str) -> None:
        self.folder = folder
        self.server = server
        self.proxy = proxy
        self.key = key
        self.client = client(proxy, key)

    def connect(self, request: str, sent: bytes = b"") -> socket.socket:
        """A connection to nginx on which a request, given by its first line and further headers, has begun."""
        plain = socket.create_connection(("127.0.0.1", self.proxy.port), timeout=TIMEOUT_S)
        connection = self.proxy.trust.wrap_socket(plain, server_hostname="127.0.0.1")
        line, *headers = request.splitlines()
        lines = [line, "Host: clip.example.org", f"Authorization: Bearer {self.key}", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode() + sent)
        return connection

    def accesses(self) -> list[dict[str, Any]]:
        """What the service has logged of requests."""
        lines = [json.loads(line) for line in self.server.log.read_text().splitlines()]
        return [line for line in lines if line["logger"] == "app.access"]


def client(proxy: Proxy, key: str = "", local_address: str | None = None) -> httpx.Client:
    return httpx.Client(
        base_url=proxy.url,
        # A connection for each request: nginx closes one whose body it did not read to its end.
        transport=httpx.HTTPTransport(
            verify=proxy.trust,
            local_address=local_address,
            limits=httpx.Limits(max_keepalive_connections=0),
        ),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=TIMEOUT_S,
    )


def upstream(server: RunningServer) -> str:
    return server.url.removeprefix("http://")


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())


def assert_is_body_of(kind: type[ServiceError], found: dict[str, Any]) -> None:
    """An error of nginx itself is as the service's but for its words."""
    assert found == body(kind(found["error"]["message"]))


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("behind")
    key = create_key(folder / "keys.json", "all", ["infer", "train"])
    with (
        running_server(
            folder,
            "--model",
            f"local-dir:{tiny_folder}",
            "--keys-file",
            str(folder / "keys.json"),
            SDS_CLIP_DATABASE_URL=f"sqlite:///{folder}/jobs.db",
            SDS_CLIP_MAX_BODY_BYTES=str(MAX_BODY_BYTES),
            SDS_CLIP_MAX_UPLOAD_BYTES=str(MAX_UPLOAD_MB * MB),
        ) as server,
        running_nginx(folder, [upstream(server)]) as proxy,
    ):
        found = Behind(folder, server, proxy, key)
        with found.client:
            yield found


def test_requests_pass_and_metrics_do_not(behind: Behind) -> None:
    answer = behind.client.post("/match", json=MATCH)

    assert answer.status_code == 200, answer.text
    key = {"Authorization": f"Bearer {behind.key}"}
    direct = httpx.post(f"{behind.server.url}/match", json=MATCH, headers=key).json()
    assert answer.json()["results"] == direct["results"]
    assert behind.client.get("/metrics").status_code == 404
    with client(behind.proxy) as stranger:
        assert stranger.post("/match", json=MATCH).json()["error"]["code"] == "unauthorized"


def test_browser_signs_in_over_tls_and_another_origin_cannot_use_its_session(behind: Behind) -> None:
    own = {"Origin": behind.proxy.url}
    with client(behind.proxy) as browser:
        answer = browser.post("/session", json={"key": behind.key}, headers=own)
        assert "; Secure" in answer.headers["Set-Cookie"]
        assert browser.get("/jobs", headers=own).status_code == 200
        token = {"X-CSRF-Token": answer.json()["csrf_token"]}
        assert (
            browser.delete("/session", headers={**own, **token, "Origin": "https://127.0.0.1"}).status_code
            == 403
        )
        assert browser.delete("/session", headers={**own, **token}).json()["signed_in"] is False
        assert not browser.cookies


def test_events_arrive_when_they_happen(behind: Behind) -> None:
    store = Store(f"sqlite:///{behind.folder}/jobs.db")
    job = store.jobs.submit(NewJob(JobKind.FINETUNE, {}, config={**CONFIG}, owner="all"))[0]

    with behind.client.stream("GET", f"/jobs/{job.id}/events", headers=STREAM) as answer:
        following = frames(answer.iter_lines())
        assert next(following).data["data"]["to"] == "queued"
        claimed = store.leases.claim(JobKind.FINETUNE, "slot", 60)
        assert claimed is not None
        assert next(frame for frame in following if frame.name == "status").data["data"]["to"] == "running"
        store.leases.progress(Lease.of(claimed), stage="training", step=5, steps=10)
        assert next(frame.data for frame in following if frame.data.get("stage"))["progress"]["step"] == 5
        store.jobs.request_cancel(job.id)
        store.leases.release(Lease.of(claimed))
        assert [frame.name for frame in following][-1] == "done"
    store.close()


def test_upload_reaches_the_service_while_it_arrives_and_leaves_nothing_if_the_client_goes(
    behind: Behind,
) -> None:
    begin = HEAD + tar_header(b"zeros", 60 * MB) + CHUNK * 3
    request = f"POST /datasets HTTP/1.1\nContent-Type: {FORM}\nContent-Length: {70 * MB}"
    connection = behind.connect(request, begin)
    until(lambda: stored(behind))

    connection.close()

    until(lambda: not stored(behind))


def stored(behind: Behind) -> list[str]:
    """The files of data sets that the service has written."""
    return file_names(behind.folder / "data" / "datasets")


def upload(megabytes: int) -> Iterator[bytes]:
    yield HEAD + tar_header(b"zeros", megabytes * MB)
    yield from [CHUNK] * megabytes
    yield bytes(1024) + TAIL


def test_upload_within_the_limit_is_accepted(behind: Behind) -> None:
    answer = behind.client.post("/datasets", content=upload(70), headers={"Content-Type": FORM})

    assert answer.status_code == 202, answer.text
    assert answer.json()["source"]["size_bytes"] > 70 * MB
    behind.client.delete(answer.headers["Location"])


@pytest.mark.parametrize("announced", [True, False])
def test_upload_over_the_limit_gets_the_answer_of_the_service(behind: Behind, announced: bool) -> None:
    size = len(b"".join(upload(90)))
    headers = {"Content-Type": FORM, **({"Content-Length": str(size)} if announced else {})}
    answer = behind.client.post("/datasets", content=upload(90), headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "upload_too_large")
    assert str(MAX_UPLOAD_MB * MB) in answer.json()["error"]["message"]


def test_body_over_the_limit_gets_the_answer_of_the_service(behind: Behind) -> None:
    answer = behind.client.post("/match", content=bytes(2 * MAX_BODY_BYTES))

    assert answer.status_code == 413
    assert str(MAX_BODY_BYTES) in answer.json()["error"]["message"]


def test_body_over_the_limit_of_nginx_is_refused_in_the_same_form(behind: Behind) -> None:
    with behind.connect(f"POST /match HTTP/1.1\nContent-Length: {200 * MB}") as connection:
        status, found = answer_of(connection)

    assert status == 413
    assert_is_body_of(BodyTooLarge, found)


def test_request_of_a_client_that_goes_is_cancelled(behind: Behind) -> None:
    asked = itertools.count()

    def is_cancelled() -> bool:
        """Ask again, and go a little later, until the service has the request and has not answered it."""
        number = next(asked)
        texts = [f"never seen {text} of {number}" for text in range(1000)]
        content = json.dumps({"texts": texts}).encode()
        headers = f"Content-Type: application/json\nContent-Length: {len(content)}"
        with behind.connect(f"POST /embed HTTP/1.1\n{headers}", content):
            time.sleep(0.01 * (number % 20))
        time.sleep(0.1)
        return any(line["status"] == 499 for line in behind.accesses())

    until(is_cancelled)


def test_log_has_the_address_of_the_caller_and_not_what_it_claims(behind: Behind) -> None:
    with client(behind.proxy, local_address="127.0.0.2") as caller:
        headers = {"X-Forwarded-For": "203.0.113.9", "X-Request-Id": "from-2"}
        assert caller.get("/models", headers=headers).status_code == 401

    until(lambda: [line for line in behind.accesses() if line["request_id"] == "from-2"])
    (line,) = [line for line in behind.accesses() if line["request_id"] == "from-2"]
    assert line["client"] == "127.0.0.2"


def test_service_without_keys_knows_its_own_pages_behind_nginx(tmp_path: Path, tiny_folder: Path) -> None:
    model = ("--model", f"local-dir:{tiny_folder}")
    with (
        running_server(tmp_path, *model, SDS_CLIP_ALLOWED_HOSTS="clip.example.org") as server,
        running_nginx(tmp_path, [upstream(server)]) as proxy,
        client(proxy) as caller,
    ):

        def code(host: str, origin: str | None = None) -> str | None:
            headers = {"Host": host, **({"Origin": origin} if origin else {})}
            answer = caller.post("/match", json=MATCH, headers=headers)
            return None if answer.status_code == 200 else str(answer.json()["error"]["code"])

        host = f"clip.example.org:{proxy.port}"
        assert code(host, f"https://{host}") is None
        assert code(host, "https://evil.example.org") == "foreign_origin"
        assert code("evil.example.org") == "foreign_host"


@pytest.mark.long
def test_requests_go_on_while_processes_drain_or_die_and_the_last_one_is_missed_politely(
    tmp_path: Path, tiny_folder: Path
) -> None:
    statuses: list[int] = []
    done = threading.Event()

    with contextlib.ExitStack() as stack:
        servers = []
        for name in ("a", "b", "c"):
            (tmp_path / name).mkdir()
            started = running_server(tmp_path / name, "--model", f"local-dir:{tiny_folder}")
            servers.append(stack.enter_context(started))
        proxy = stack.enter_context(running_nginx(tmp_path, [upstream(each) for each in servers]))
        caller = stack.enter_context(client(proxy))
        # The name that a service without keys answers to.
        caller.headers["Host"] = "localhost"

        def ask() -> None:
            while not done.is_set():
                statuses.append(caller.post("/match", json=MATCH).status_code)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for server, number in zip(servers, (signal.SIGTERM, signal.SIGKILL), strict=False):
                enough = len(statuses) + 10
                until(lambda enough=enough: len(statuses) > enough)
                server.process.send_signal(number)
                server.process.wait()
                enough = len(statuses) + 10
                until(lambda enough=enough: len(statuses) > enough)
        finally:
            done.set()
            thread.join()
        assert set(statuses) == {200}

        servers[2].process.kill()
        servers[2].process.wait()
        answer = caller.get("/models")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "2"
        assert_is_body_of(Unavailable, answer.json())
