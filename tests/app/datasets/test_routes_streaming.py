"""Uploads to a server in a process of its own: what stays in memory and on the disk, and what happens to the slow."""

import contextlib
import http.client
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streaming")


@pytest.fixture(scope="module")
def key(folder: Path) -> str:
    return create_key(folder / "keys.json", "trainer", ["train"])


@pytest.fixture(scope="module")
def server(folder: Path, key: str, small_reference: str) -> Iterator[RunningServer]:
    with running_server(
        folder,
        "--model",
        small_reference,
        "--keys-file",
        str(folder / "keys.json"),
        SDS_CLIP_DATABASE_URL=f"sqlite:///{folder}/jobs.db",
        constants={
            "sds_clip.app.edge.middleware.BODY_TIMEOUT_S": 1.0,
            "sds_clip.app.backend.MAX_UPLOADS_PER_KEY": MAX_UPLOADS,
        },
        SDS_CLIP_MAX_BODY_BYTES="65536",
        SDS_CLIP_MAX_UPLOAD_BYTES=str(300 * MB),
    ) as server:
        yield server


def _upload(megabytes: int) -> Iterator[bytes]:
    """A form whose archive is a tar of one file of zeros."""
    yield HEAD + tar_header(b"zeros", megabytes * MB)
    for _ in range(megabytes):
        yield CHUNK
    yield bytes(1024) + TAIL


def _post(server: RunningServer, content: Iterator[bytes], key: str, **headers: str) -> httpx.Response:
    headers = {"Content-Type": FORM, "Authorization": f"Bearer {key}", **headers}
    return httpx.post(f"{server.url}/datasets", content=content, headers=headers, timeout=TIMEOUT_S)


def _begin(server: RunningServer, key: str, sent: bytes, announced: int) -> socket.socket:
    """A connection on which an upload has begun."""
    url = urlsplit(server.url)
    connection = socket.create_connection((str(url.hostname), int(url.port or 0)), timeout=TIMEOUT_S)
    connection.sendall(
        f"POST /datasets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: {FORM}\r\nContent-Length: {announced}\r\n\r\n".encode()
        + sent
    )
    return connection


def _answer(connection: socket.socket) -> tuple[int, str]:
    """The status and the error's code; reads to the end of the answer."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, str(json.loads(answer.read())["error"]["code"])


def _peak_mb(server: RunningServer) -> float:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _files(folder: Path) -> list[str]:
    return file_names(folder / "data" / "datasets")


def test_large_upload_goes_to_the_disk_and_not_into_memory(
    server: RunningServer, folder: Path, key: str
) -> None:
    assert _post(server, _upload(1), key).status_code == 202
    before = _peak_mb(server)

    answer = _post(server, _upload(200), key)

    assert answer.status_code == 202, answer.text
    assert answer.json()["source"]["size_bytes"] == 200 * MB + 512 + 1024
    assert _peak_mb(server) - before < 60
    listed = httpx.get(f"{server.url}/datasets", headers={"Authorization": f"Bearer {key}"}).json()["data"]
    for dataset in listed:
        httpx.delete(f"{server.url}/datasets/{dataset['id']}", headers={"Authorization": f"Bearer {key}"})
    assert _files(folder) == []


def test_client_that_hangs_up_leaves_nothing(server: RunningServer, folder: Path, key: str) -> None:
    connection = _begin(server, key, HEAD + tar_header(b"zeros", 90 * MB) + CHUNK * 3, 100 * MB)
    until(lambda: _files(folder))

    connection.close()

    until(lambda: not _files(folder))


def test_client_that_stands_still_is_let_go_and_leaves_nothing(
    server: RunningServer, folder: Path, key: str
) -> None:
    with _begin(server, key, HEAD + tar_header(b"zeros", 90 * MB) + CHUNK, 100 * MB) as connection:
        assert _answer(connection) == (408, "upload_too_slow")

    until(lambda: not _files(folder))


def test_uploads_that_drip_in_free_their_places_and_leave_nothing(
    server: RunningServer, folder: Path, key: str
) -> None:
    head = HEAD + tar_header(b"zeros", 90 * MB)
    statuses: set[tuple[int, str]] = set()
    deadline = time.monotonic() + TIMEOUT_S
    with contextlib.ExitStack() as closing:
        dripping = [closing.enter_context(_begin(server, key, head, 100 * MB)) for _ in range(MAX_UPLOADS)]
        while dripping:
            assert time.monotonic() < deadline, "an upload goes on"
            for connection in list(dripping):
                if select.select([connection], [], [], 0.05)[0]:
                    statuses.add(_answer(connection))
                    dripping.remove(connection)
                else:
                    connection.sendall(b"x")

    assert statuses == {(408, "upload_too_slow")}
    until(lambda: not _files(folder))
    accepted = _post(server, _upload(1), key)
    assert accepted.status_code == 202
    httpx.delete(f"{server.url}/datasets/{accepted.json()['id']}", headers={"Authorization": f"Bearer {key}"})


def test_upload_over_the_limit_is_refused_and_leaves_nothing(
    server: RunningServer, folder: Path, key: str
) -> None:
    try:
        status = _post(server, _upload(310), key).status_code
    except httpx.TransportError:  # cut off while it was still sending
        status = 413
    assert status == 413

    until(lambda: not _files(folder))


@pytest.mark.parametrize("announced", [100_000, 2**40])
def test_upload_without_a_key_is_refused_before_it_arrives(server: RunningServer, announced: int) -> None:
    with _begin(server, "none", HEAD, announced) as connection:
        assert _answer(connection) == (401, "unauthorized")


def test_wrong_field_is_told_before_the_file_has_arrived(server: RunningServer, key: str) -> None:
    head = HEAD.replace(b"pairs", b"magic")
    with _begin(server, key, head + tar_header(b"zeros", 90 * MB), 100 * MB) as connection:
        status, code = _answer(connection)

    assert (status, code) == (422, "invalid_request")


def test_registration_has_the_limits_of_every_other_body(server: RunningServer, key: str) -> None:
    answer = httpx.post(
        f"{server.url}/datasets",
        content=b" " * 70_000,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )

    assert answer.status_code == 413


def test_upload_that_a_killed_service_cut_off_is_gone_after_the_restart(
    tmp_path: Path, small_reference: str
) -> None:
    database = f"sqlite:///{tmp_path}/jobs.db"
    with running_server(tmp_path, "--model", small_reference, SDS_CLIP_DATABASE_URL=database) as server:
        with _begin(server, "none", HEAD + tar_header(b"zeros", 90 * MB) + CHUNK * 3, 100 * MB):
            until(lambda: _files(tmp_path))
            server.process.kill()
            server.process.wait()
        assert _files(tmp_path) != [], "nobody was left to remove it"
    with running_server(tmp_path, "--model", small_reference, SDS_CLIP_DATABASE_URL=database) as server:
        until(lambda: not _files(tmp_path))
        assert httpx.get(f"{server.url}/datasets").json()["data"] == []
        assert _post(server, _upload(1), "none").status_code == 202


@pytest.mark.long
@pytest.mark.parametrize("ends", [True, False])
def test_upload_under_way_at_sigterm_has_seconds_to_end_and_leaves_nothing_otherwise(
    tmp_path: Path, small_reference: str, ends: bool
) -> None:
    database = f"sqlite:///{tmp_path}/jobs.db"
    whole = b"".join(_upload(3))
    with running_server(tmp_path, "--model", small_reference, SDS_CLIP_DATABASE_URL=database) as server:
        with _begin(server, "none", whole[: 2 * MB], len(whole)) as connection:
            until(lambda: _files(tmp_path))
            server.terminate()
            until(lambda: "received SIGTERM" in server.log.read_text())
            if ends:
                connection.sendall(whole[2 * MB :])
                answer = http.client.HTTPResponse(connection)
                answer.begin()
                assert answer.status == 202
            assert server.process.wait(10 * TIMEOUT_S) == 0
        assert bool(_files(tmp_path)) == ends
