"""Real processes that are killed and start again while their database is away, or after a byte has changed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from sds_clip.app.store import Store
from sds_clip.app.store.records import Move, NewVersion
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from tests.app.serverside import free_port
from tests.app.serving.swapping import MATCH, Library, assert_of_its_version, flip_a_byte, publish_tuned
from tests.databases import Databases, held, on_both_if_long
from tests.disks import small_disk
from tests.postgres import PostgreSQL

PATIENCE_S = 120.0


class Process:
    """`sds-clip serve` over a database, always on the same port."""

    def __init__(self, folder: Path, reference: str, database_url: str) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._log = folder / f"{self._port}.log"
        settings = {
            "DATABASE_URL": database_url,
            "DATA_DIR": str(folder / "data"),
            "PRECISION": "float32",
            "DEVICE": "cpu",
            "THREADS": "1",
            "STORE_TIMEOUT_S": "1",
            "MODELS": reference,
        }
        self._environment = {**os.environ, **{f"SDS_CLIP_{name}": value for name, value in settings.items()}}
        self.start()

    def start(self) -> None:
        """Start it, also again, and wait until it answers, be it that it is not ready."""
        command = [sys.executable, "-m", "sds_clip", "serve", "--port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
        self.until(lambda: self.ready() is not None)

    def kill(self) -> None:
        """As the kernel would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def ready(self) -> httpx.Response | None:
        """What it says of itself; None while it does not listen."""
        try:
            return httpx.get(f"{self.url}/ready", timeout=30)
        except httpx.TransportError:
            assert self._process.poll() is None, self._log.read_text()
            return None

    def match(self, **fields: Any) -> httpx.Response:
        """A request as a caller sends it."""
        return httpx.post(f"{self.url}/match", json={**MATCH, **fields}, timeout=30)

    def alias_state(self) -> dict[str, Any]:
        """What it says of the aliases that it reads and keeps."""
        status = httpx.get(f"{self.url}/models/status", timeout=30).json()
        aliases: dict[str, Any] = status["processes"][0]["aliases"]
        return aliases

    def serves(self, version: str) -> bool:
        """Whether the default model is this version."""
        answer = self.match()
        return bool(answer.is_success and answer.json()["model"]["version"] == version)

    def until(self, is_so: Callable[[], object]) -> None:
        """Wait for something."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path, small_reference: str, database_url: str) -> Iterator[Callable[[], Process]]:
    """Starts a process, which is killed after the test."""
    with ExitStack() as closing:

        def make() -> Process:
            process = Process(tmp_path, small_reference, database_url)
            closing.callback(process.kill)
            return process

        yield make


@contextmanager
def database_away(databases: Databases, url: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """PostgreSQL is stopped; SQLite's file is locked by somebody."""
    if databases.kind == "sqlite":
        with held(url):
            yield
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    server.stop()
    try:
        yield
    finally:
        server.start()


def promote(folder: Path, base: Clip, database_url: str) -> Library:
    """Publish a delta over the base, register it and point `default` at it."""
    root = folder / "data" / "versions"
    version = publish_tuned(root, base, folder / "delta", seed=1)
    store = Store(database_url)
    store.versions.register(NewVersion(version, f"versions/{version}", {}, 1, base_version=base.version))
    store.aliases.promote(Move(alias="default", who="test", why="", expected_generation=1), version)
    store.close()
    tuned = load_clip(f"local-dir:{root / version}", device="cpu", precision="float32")
    return Library(root, base, {base.version: base, version: tuned})


def assert_promoted(process: Process, library: Library) -> None:
    """It answers with the promoted version, its generation and its own numbers."""
    answer = process.match()
    assert answer.status_code == 200, answer.text
    model = answer.json()["model"]
    assert (model["name"], model["version"], model["generation"]) == ("default", library.published[0], 2)
    assert_of_its_version(answer.json(), library)


@pytest.mark.long
@on_both_if_long
def test_one_of_two_processes_killed_while_the_database_is_away_serves_what_its_neighbour_serves(
    start: Callable[[], Process],
    databases: Databases,
    database_url: str,
    small_clip: Clip,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    one, two = start(), start()
    library = promote(tmp_path, small_clip, database_url)
    for process in (one, two):
        process.until(partial(process.serves, library.published[0]))

    with database_away(databases, database_url, request):
        two.kill()
        two.start()
        ready = two.ready()
        assert ready is not None
        assert (ready.status_code, ready.json()["aliases"]) == (200, "state")
        assert_promoted(one, library)
        assert_promoted(two, library)
        assert two.match(model="prod").status_code == 503

    two.until(lambda: two.match(model="prod").status_code == 404)
    assert_promoted(two, library)


def test_byte_flipped_in_the_promoted_version_does_not_reach_what_is_served_after_a_restart(
    start: Callable[[], Process], database_url: str, small_clip: Clip, tmp_path: Path
) -> None:
    process = start()
    library = promote(tmp_path, small_clip, database_url)
    version = library.published[0]
    process.until(lambda: process.serves(version))
    process.kill()

    flip_a_byte(library.root / version / "delta.safetensors")
    process.start()

    assert_promoted(process, library)
    assert httpx.get(f"{process.url}/models/{version}").json()["status"] == "damaged"


@pytest.mark.long
def test_full_disk_of_the_state_stops_no_swap_and_never_brings_an_older_version_back(
    start: Callable[[], Process], database_url: str, small_clip: Clip, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "data" / "state", "4m") as disk:
        process = start()
        disk.fill()
        library = promote(tmp_path, small_clip, database_url)
        process.until(lambda: process.serves(library.published[0]))
        assert "No space left" in process.alias_state()["state_error"]

        with held(database_url):
            process.kill()
            process.start()
            # A small file may have found room where the older one was.
            if process.match().is_success:
                assert_promoted(process, library)
            else:
                assert process.match().json()["error"]["code"] == "registry_away"
        process.until(lambda: process.serves(library.published[0]))
        assert_promoted(process, library)

        disk.free()
        process.kill()
        process.start()
        process.until(lambda: process.serves(library.published[0]))
        assert process.alias_state()["state_error"] is None
        with held(database_url):
            process.kill()
            process.start()
            assert_promoted(process, library)
        process.kill()
