"""Uploads to a server in a process of its own: what stays in memory and on the disk, and what happens to the slow."""

import contextlib
import http.client
import json
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from sds_clip.app.backend import MAX_UPLOADS
from sds_clip.app.keys import create_key
from tests.app.datasets.archives import file_names, tar_header
from tests.app.serverside import RunningServer, running_server
from tests.worker.waiting import until

BOUNDARY = "b" * 20
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="format"\r\n\r\npairs\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.tar"\r\n\r\n'
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
FORM = f"multipart/form-data; boundary={BOUNDARY}"
CHUNK = bytes(2**20)
MB = 2**20
TIMEOUT_S = 30


def _upload(megabytes: int) -> Iterator[bytes]:
    """A form whose archive is a tar of one file of zeros."""
    yield HEAD + tar_header(b"zeros", megabytes * MB)
    for _ in range(megabytes):
        yield CHUNK
    yield bytes(1024) + TAIL


@dataclass
class Service:
    """A server, the folder that it works in, and a key."""

    server: RunningServer
    folder: Path
    key: str = "none"

    @property
    def authorized(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def post(self, megabytes: int) -> httpx.Response:
        headers = {"Content-Type": FORM, **self.authorized}
        url = f"{self.server.url}/datasets"
        return httpx.post(url, content=_upload(megabytes), headers=headers, timeout=TIMEOUT_S)

    def begin(self, sent: bytes, announced: int) -> socket.socket:
        """A connection on which an upload has begun."""
        url = urlsplit(self.server.url)
        connection = socket.create_connection((str(url.hostname), int(url.port or 0)), timeout=TIMEOUT_S)
        connection.sendall(
            f"POST /datasets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: {FORM}\r\nContent-Length: {announced}\r\n\r\n".encode()
            + sent
        )
        return connection

    def delete(self, dataset: dict[str, Any]) -> None:
        httpx.delete(f"{self.server.url}/datasets/{dataset['id']}", headers=self.authorized)

    def peak_mb(self) -> float:
        lines = Path(f"/proc/{self.server.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

    def files(self) -> list[str]:
        return file_names(self.folder / "data" / "datasets")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, small_reference: str) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("streaming")
    key = create_key(folder / "keys.json", "trainer", ["train"])
    options = {
        "SDS_CLIP_KEYS_FILE": str(folder / "keys.json"),
        "SDS_CLIP_DATABASE_URL": f"sqlite:///{folder}/jobs.db",
        "SDS_CLIP_MAX_BODY_BYTES": "65536",
        "SDS_CLIP_MAX_UPLOAD_BYTES": str(300 * MB),
    }
    constants = {
        "sds_clip.app.edge.middleware.BODY_TIMEOUT_S": 1.0,
        "sds_clip.app.backend.MAX_UPLOADS_PER_KEY": MAX_UPLOADS,
    }
    with running_server(folder, "--model", small_reference, constants=constants, **options) as server:
        yield Service(server, folder, key)


@contextlib.contextmanager
def _without_keys(folder: Path, reference: str) -> Iterator[Service]:
    database = f"sqlite:///{folder}/jobs.db"
    with running_server(folder, "--model", reference, SDS_CLIP_DATABASE_URL=database) as server:
        yield Service(server, folder)


def _answer(connection: socket.socket) -> tuple[int, str]:
    """The status and the error's code; reads to the end of the answer."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, str(json.loads(answer.read())["error"]["code"])


def test_large_upload_goes_to_the_disk_and_not_into_memory(service: Service) -> None:
    assert service.post(1).status_code == 202
    before = service.peak_mb()

    answer = service.post(200)

    assert answer.status_code == 202, answer.text
    assert answer.json()["source"]["size_bytes"] == 200 * MB + 512 + 1024
    assert service.peak_mb() - before < 60
    listed = httpx.get(f"{service.server.url}/datasets", headers=service.authorized).json()["data"]
    for dataset in listed:
        service.delete(dataset)
    assert service.files() == []


def test_client_that_hangs_up_leaves_nothing(service: Service) -> None:
    connection = service.begin(HEAD + tar_header(b"zeros", 90 * MB) + CHUNK * 3, 100 * MB)
    until(lambda: service.files())

    connection.close()

    until(lambda: not service.files())


def test_client_that_stands_still_is_let_go_and_leaves_nothing(service: Service) -> None:
    with service.begin(HEAD + tar_header(b"zeros", 90 * MB) + CHUNK, 100 * MB) as connection:
        assert _answer(connection) == (408, "upload_too_slow")

    until(lambda: not service.files())


def test_uploads_that_drip_in_free_their_places_and_leave_nothing(service: Service) -> None:
    head = HEAD + tar_header(b"zeros", 90 * MB)
    statuses: set[tuple[int, str]] = set()
    deadline = time.monotonic() + TIMEOUT_S
    with contextlib.ExitStack() as closing:
        dripping = [closing.enter_context(service.begin(head, 100 * MB)) for _ in range(MAX_UPLOADS)]
        while dripping:
            assert time.monotonic() < deadline, "an upload goes on"
            for connection in list(dripping):
                if select.select([connection], [], [], 0.05)[0]:
                    statuses.add(_answer(connection))
                    dripping.remove(connection)
                else:
                    connection.sendall(b"x")

    assert statuses == {(408, "upload_too_slow")}
    until(lambda: not service.files())
    accepted = service.post(1)
    assert accepted.status_code == 202
    service.delete(accepted.json())


def test_upload_over_the_limit_is_refused_and_leaves_nothing(service: Service) -> None:
    try:
        status = service.post(310).status_code
    except httpx.TransportError:  # cut off while it was still sending
        status = 413
    assert status == 413

    until(lambda: not service.files())


@pytest.mark.parametrize("announced", [100_000, 2**40])
def test_upload_without_a_key_is_refused_before_it_arrives(service: Service, announced: int) -> None:
    with replace(service, key="none").begin(HEAD, announced) as connection:
        assert _answer(connection) == (401, "unauthorized")


def test_wrong_field_is_told_before_the_file_has_arrived(service: Service) -> None:
    head = HEAD.replace(b"pairs", b"magic")
    with service.begin(head + tar_header(b"zeros", 90 * MB), 100 * MB) as connection:
        status, code = _answer(connection)

    assert (status, code) == (422, "invalid_request")


def test_registration_has_the_limits_of_every_other_body(service: Service) -> None:
    headers = {"Content-Type": "application/json", **service.authorized}

    answer = httpx.post(f"{service.server.url}/datasets", content=b" " * 70_000, headers=headers)

    assert answer.status_code == 413


def test_upload_that_a_killed_service_cut_off_is_gone_after_the_restart(
    tmp_path: Path, small_reference: str
) -> None:
    with _without_keys(tmp_path, small_reference) as service:
        with service.begin(HEAD + tar_header(b"zeros", 90 * MB) + CHUNK * 3, 100 * MB):
            until(lambda: service.files())
            service.server.process.kill()
            service.server.process.wait()
        assert service.files() != [], "nobody was left to remove it"
    with _without_keys(tmp_path, small_reference) as service:
        until(lambda: not service.files())
        assert httpx.get(f"{service.server.url}/datasets").json()["data"] == []
        assert service.post(1).status_code == 202


@pytest.mark.long
@pytest.mark.parametrize("ends", [True, False])
def test_upload_under_way_at_sigterm_has_seconds_to_end_and_leaves_nothing_otherwise(
    tmp_path: Path, small_reference: str, ends: bool
) -> None:
    whole = b"".join(_upload(3))
    with _without_keys(tmp_path, small_reference) as service:
        with service.begin(whole[: 2 * MB], len(whole)) as connection:
            until(lambda: service.files())
            service.server.terminate()
            until(lambda: "received SIGTERM" in service.server.log.read_text())
            if ends:
                connection.sendall(whole[2 * MB :])
                answer = http.client.HTTPResponse(connection)
                answer.begin()
                assert answer.status == 202
            assert service.server.process.wait(10 * TIMEOUT_S) == 0
        assert bool(service.files()) == ends
