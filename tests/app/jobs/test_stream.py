"""Server-Sent Events: from a running service in a process of its own, and from one whose job has ended."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from sds_clip.app.keys import create_key, delete_key
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job
from tests.app.jobs.conftest import Service
from tests.app.jobs.streamed import claim, submit
from tests.app.serverside import RunningServer, running_server
from tests.worker.waiting import until

STREAM = {"Accept": "text/event-stream"}
TIMEOUT_S = 30


@dataclass
class Frame:
    """One event of a stream."""

    fields: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.fields.get("event", "")

    @property
    def id(self) -> int | None:
        return int(self.fields["id"]) if "id" in self.fields else None

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.fields["data"])
        return data


def frames(lines: Iterator[str]) -> Iterator[Frame]:
    """The events of a stream, as the standard has them: comments and `retry` left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line and fields:
            if "data" in fields:
                yield Frame(fields)
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


@dataclass
class Live:
    """A service in another process, and the store as its workers have it."""

    server: RunningServer
    store: Store

    @contextlib.contextmanager
    def follow(self, job: Job, **headers: str) -> Iterator[Iterator[Frame]]:
        url = f"{self.server.url}/jobs/{job.id}/events"
        with httpx.stream("GET", url, headers={**STREAM, **headers}, timeout=TIMEOUT_S) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            yield frames(answer.iter_lines())


@pytest.fixture(scope="module")
def live(small_reference: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    url = f"sqlite:///{folder}/jobs.db"
    constants = {"sds_clip.app.settings.MAX_EVENT_STREAMS": 2}
    with running_server(
        folder, "--model", small_reference, constants=constants, SDS_CLIP_DATABASE_URL=url
    ) as server:
        store = Store(url)
        yield Live(server, store)
        store.close()


def test_stream_tells_what_happens_while_it_happens_and_ends_with_the_job(live: Live) -> None:
    job = submit(live.store)

    with live.follow(job) as following:
        assert next(following).data["data"] == {"from": None, "to": "queued"}
        assert next(following).name == "progress"
        lease = claim(live.store)
        assert next(following).data["data"]["to"] == "running"
        assert next(following).data["status"] == "running"
        live.store.leases.progress(lease, stage="training", step=5, steps=10)
        live.store.leases.points(lease, {5: {"loss": 0.5}})
        seen = [next(following)]
        while seen[-1].name != "metrics":
            seen.append(next(following))
        assert (seen[-1].id, seen[-1].data["data"]) == (3, {"step": 5, "values": {"loss": 0.5}})
        while seen[-1].name != "progress" or seen[-1].data["progress"]["step"] != 5:
            seen.append(next(following))
        assert seen[-1].id is None
        live.store.leases.succeed(lease, result={"steps": 10})
        rest = list(following)

    assert rest[-1].name == "done"
    assert (rest[-1].data["id"], rest[-1].data["status"]) == (job.id, "succeeded")
    assert [frame.id for frame in rest if frame.id] == [4]


@pytest.mark.long
def test_stream_of_a_deleted_key_ends(small_reference: str, tmp_path: Path) -> None:
    keys, url = tmp_path / "keys.json", f"sqlite:///{tmp_path}/jobs.db"
    key = {"Authorization": f"Bearer {create_key(keys, 'trainer', ['train'])}"}
    create_key(keys, "another", ["train"])
    options = {"SDS_CLIP_DATABASE_URL": url, "SDS_CLIP_KEYS_FILE": str(keys)}
    with running_server(tmp_path, "--model", small_reference, **options) as server:
        store = Store(url)
        live = Live(server, store)
        job = submit(store, owner="trainer")
        with live.follow(job, **key) as following:
            assert next(following).data["data"]["to"] == "queued"
            delete_key(keys, "trainer")
            assert [frame.name for frame in following] == ["progress"]
        answer = httpx.get(f"{server.url}/jobs/{job.id}/events", headers={**STREAM, **key})
        assert answer.status_code == 401
        store.close()


def test_client_that_comes_back_misses_nothing_and_gets_nothing_twice(live: Live) -> None:
    job = submit(live.store)
    lease = claim(live.store)
    for number in range(450):  # more than one page
        live.store.leases.event(lease, f"event {number}")

    with live.follow(job) as following:
        first = [next(following).id for _ in range(250)]
    with live.follow(job, **{"Last-Event-ID": str(first[-1])}) as following:
        second = [next(following).id for _ in range(202)]
    live.store.leases.succeed(lease)

    assert [*first, *second] == list(range(1, 453))


def test_client_that_has_seen_the_end_is_told_not_to_come_back(live: Live) -> None:
    job = submit(live.store)
    live.store.jobs.request_cancel(job.id)
    with live.follow(job) as following:
        last = [frame.id for frame in following if frame.id][-1]

    answer = httpx.get(
        f"{live.server.url}/jobs/{job.id}/events", headers={**STREAM, "Last-Event-ID": str(last)}
    )

    assert (answer.status_code, answer.content) == (204, b"")


def test_streams_are_bounded_and_a_client_that_goes_makes_room(live: Live) -> None:
    job = submit(live.store)
    url = f"{live.server.url}/jobs/{job.id}/events"

    with live.follow(job) as first, live.follow(job) as second:
        next(first), next(second)
        refused = httpx.get(url, headers=STREAM)
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) > 0
        assert httpx.get(url).status_code == 200  # pages are no streams

    def has_room() -> bool:
        with httpx.stream("GET", url, headers=STREAM) as again:
            return again.status_code == 200

    until(has_room)
    live.store.jobs.request_cancel(job.id)


def test_server_that_stops_lets_its_streams_go(small_reference: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with running_server(tmp_path, "--model", small_reference, SDS_CLIP_DATABASE_URL=url) as server:
        live = Live(server, Store(url))
        with live.follow(submit(live.store)) as following:
            next(following)
            server.terminate()
            rest = list(following)  # and no error: the stream ends as it should
        assert all(frame.name == "progress" for frame in rest)
        assert server.process.wait(TIMEOUT_S) == 0
        live.store.close()


def test_lines_in_a_message_stay_one_event(service: Service) -> None:
    job = service.finetune()
    _, lease = service.claim()
    service.store.leases.event(lease, "one\ndata: two\n\nevent: done\r\u2028three")
    service.store.leases.succeed(lease)

    answer = service.client.get(f"/jobs/{job['id']}/events", headers=STREAM)

    found = list(frames(iter(answer.text.split("\n"))))
    assert [frame.name for frame in found] == ["status", "status", "message", "status", "progress", "done"]
    assert found[2].data["message"] == "one\ndata: two\n\nevent: done\r\u2028three"
