"""Two real serving processes over one database: a promotion that waits for both of them."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from sds_clip.app.registry.publish import read_published
from sds_clip.app.store import Store
from sds_clip.app.store.records import NewVersion
from sds_clip.models.clip.model import Clip
from tests.app.serverside import RunningServer, running_server
from tests.app.serving.swapping import MATCH, publish_tuned
from tests.worker.waiting import until

LONG_S = 300
"""No test waits for so long: its request times out first."""


class Pair(NamedTuple):
    """Two servers that share a database and a data folder, and the versions that can be promoted."""

    one: RunningServer
    two: RunningServer
    versions: list[str]
    unloadable: str
    """A version whose base no process may load."""

    def promote(self, version: str, wait_s: float) -> dict[str, Any]:
        return self.post(f"/models/{version}/promote", wait_s)

    def post(self, path: str, wait_s: float) -> dict[str, Any]:
        body = {"reason": "a test", "wait_s": wait_s}
        answer = httpx.post(f"{self.one.url}{path}", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        moved: dict[str, Any] = answer.json()
        return moved

    def served(self) -> list[str]:
        """What each server answers with."""
        return [
            httpx.post(f"{server.url}/match", json=MATCH, timeout=120).json()["model"]["version"]
            for server in (self.one, self.two)
        ]

    def wanted(self) -> str:
        """Where the alias points."""
        aliases = httpx.get(f"{self.one.url}/models").json()["aliases"]
        return str(next(alias["version"] for alias in aliases if alias["name"] == "default"))


@pytest.fixture
def pair(tmp_path: Path, small_reference: str, small_clip: Clip, other_clip: Clip) -> Iterator[Pair]:
    data = tmp_path / "data"
    environment = {
        "SDS_CLIP_DATA_DIR": str(data),
        "SDS_CLIP_DATABASE_URL": f"sqlite:///{tmp_path}/jobs.db",
        "SDS_CLIP_PRECISION": "float32",
    }
    with contextlib.ExitStack() as servers:
        started = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            server = running_server(tmp_path / name, "--model", small_reference, **environment)
            started.append(servers.enter_context(server))
        store = Store(environment["SDS_CLIP_DATABASE_URL"])
        servers.callback(store.close)
        versions = []
        for seed, base in enumerate((small_clip, small_clip, other_clip)):
            version = publish_tuned(data / "versions", base, tmp_path / f"delta-{seed}", seed=seed)
            found = read_published(data / "versions" / version, version)
            store.versions.register(
                NewVersion(version, f"versions/{version}", found.description, found.size_bytes)
            )
            versions.append(version)
        yield Pair(started[0], started[1], versions[:2], versions[2])


def states(moved: dict[str, Any]) -> dict[int, str]:
    """The state of each process by its id."""
    return {process["pid"]: process["state"] for process in moved["processes"]}


def test_wait_ends_when_both_processes_serve_and_does_not_hold_for_one_that_cannot_or_is_dead(
    pair: Pair,
) -> None:
    one, two = pair.one.process.pid, pair.two.process.pid
    first, second = pair.versions

    moved = pair.promote(first, LONG_S)
    assert moved["served_by_all"] is True
    assert states(moved) == {one: "serving", two: "serving"}
    assert moved["processes"][0]["pid"] == one
    assert pair.served() == [first, first]

    assert pair.promote(second, 0)["processes"] is None
    back = pair.post("/models/default/rollback", LONG_S)
    assert (back["version"], back["served_by_all"]) == (first, True)
    assert pair.served() == [first, first]

    failed = pair.promote(pair.unloadable, LONG_S)
    assert failed["served_by_all"] is False
    assert states(failed) == {one: "failed", two: "failed"}
    assert all(process["version"] == first for process in failed["processes"])
    assert all("SDS_CLIP_ALLOWED_MODELS" in process["error"] for process in failed["processes"])
    assert pair.wanted() == pair.unloadable

    pair.two.process.send_signal(signal.SIGKILL)
    pair.two.process.wait()
    moved = pair.promote(second, LONG_S)
    assert (states(moved), moved["served_by_all"]) == ({one: "serving"}, True)


@pytest.mark.long
def test_process_that_lags_is_told_and_neither_a_lost_caller_nor_a_shutdown_undoes_the_move(
    pair: Pair,
) -> None:
    one, two = pair.one.process.pid, pair.two.process.pid
    first, second = pair.versions
    assert pair.promote(first, LONG_S)["served_by_all"] is True
    pair.two.process.send_signal(signal.SIGSTOP)

    moved = pair.promote(second, 1)
    assert (states(moved)[two], moved["served_by_all"]) == ("behind", False)
    assert pair.wanted() == second

    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{pair.one.url}/models/{first}/promote", json={"reason": "a test", "wait_s": LONG_S}, timeout=2
        )
    assert pair.wanted() == first

    found: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: found.append(pair.promote(second, LONG_S)))
    waiting.start()
    until(lambda: pair.wanted() == second)
    pair.one.terminate()
    waiting.join()
    assert (states(found[0])[two], found[0]["served_by_all"]) == ("behind", False)
    assert states(found[0])[one] in ("serving", "behind")

    assert pair.one.process.wait(120) == 0
    pair.two.process.send_signal(signal.SIGCONT)
    answer = httpx.post(
        f"{pair.two.url}/models/{second}/promote", json={"reason": "a test", "wait_s": LONG_S}, timeout=120
    )
    assert (answer.json()["served_by_all"], states(answer.json())) == (True, {two: "serving"})
