"""The limits of each key: one key reaches them, and another notices nothing."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from httpx import Response

from sds_clip.app.budgets import Budget
from tests.app.datasets.archives import tar_of
from tests.app.jobs.conftest import Keyed, Service, error_of
from tests.app.serving.swapping import MATCH
from tests.databases import held, on_both
from tests.worker.waiting import until

ARCHIVE = tar_of({"a.txt": b"a"})
TEXTS = [f"text {number}" for number in range(8)]


def refused(answer: Response, limit: str, value: int) -> None:
    """Check an answer: 429, the limit's name and value, and when to come back."""
    error = error_of(answer, 429)
    assert error["code"] == "key_limit"
    assert f"{limit}, which is {value};" in error["message"]
    assert int(answer.headers["Retry-After"]) >= 1


def backend(keyed: Keyed) -> Any:
    return keyed.service.client.app.state.backend  # type: ignore[attr-defined]


def upload(keyed: Keyed, key: str, archive: bytes = ARCHIVE) -> Response:
    fields = {"format": "winoground"}
    return keyed.ask(key, "POST", "/datasets", data=fields, files={"file": ("a.tar", archive)})


def test_requests_in_flight(make_keyed: Callable[..., Keyed], database_url: str) -> None:
    keyed = make_keyed(max_requests_per_key=2, store_timeout_s=30)
    answers: list[Response] = []

    def list_jobs() -> None:
        # Refused if the requests below take the place first.
        while (answer := keyed.ask("alice", "GET", "/jobs")).status_code == 429:
            pass
        answers.append(answer)

    waiting = [threading.Thread(target=list_jobs) for _ in range(2)]

    with held(database_url):
        for thread in waiting:
            thread.start()
        until(lambda: keyed.ask("alice", "GET", "/models/status").status_code == 429)
        refused(keyed.ask("alice", "GET", "/models/status"), "max_requests_per_key", 2)
        refused(upload(keyed, "alice"), "max_requests_per_key", 2)
        assert keyed.ask("bob", "GET", "/models/status").status_code == 200
        assert keyed.service.client.get("/health").status_code == 200
    for thread in waiting:
        thread.join()

    assert [answer.status_code for answer in answers] == [200, 200]
    assert keyed.ask("alice", "GET", "/models/status").status_code == 200


def test_items_a_second(make_keyed: Callable[..., Keyed]) -> None:
    keyed = make_keyed(max_items_per_s_per_key=1)

    # The debt of eight texts lasts for longer than the next request takes to arrive.
    assert keyed.ask("alice", "POST", "/embed", json={"texts": TEXTS * 100}).status_code == 200
    for path, body in (
        ("/embed", {"texts": ["a"]}),
        ("/match", MATCH),
        ("/classify", {"images": MATCH["images"], "labels": ["a"]}),
    ):
        refused(keyed.ask("alice", "POST", path, json=body), "max_items_per_s_per_key", 1)
    assert keyed.ask("bob", "POST", "/embed", json={"texts": ["a"]}).status_code == 200


def test_requests_a_second(make_keyed: Callable[..., Keyed]) -> None:
    keyed = make_keyed(max_requests_per_s_per_key=1)
    begun = time.monotonic()

    assert [keyed.ask("alice", "GET", "/jobs").status_code for _ in range(3)] == [200] * 3
    assert time.monotonic() - begun >= 1


def test_wrong_keys(make_keyed: Callable[..., Keyed]) -> None:
    client = make_keyed().service.client
    wrong = {"Authorization": "Bearer wrong"}

    def refusal() -> Response:
        answer = client.get("/jobs", headers=wrong)
        assert error_of(answer, 401)["code"] == "unauthorized"
        return answer

    assert "Connection" not in refusal().headers
    until(lambda: refusal().headers.get("Connection") == "close")


def test_share_of_the_queue(make_keyed: Callable[..., Keyed]) -> None:
    keyed = make_keyed(max_queue_per_key=5)
    batcher = keyed.service.client.app.state.engine._batcher  # type: ignore[attr-defined]
    embed = {"texts": TEXTS[:4]}

    with batcher.admit(4, "alice"):
        refused(keyed.ask("alice", "POST", "/embed", json=embed), "max_queue_per_key", 5)
        assert keyed.ask("bob", "POST", "/embed", json=embed).status_code == 200
    assert keyed.ask("alice", "POST", "/embed", json={"texts": TEXTS}).status_code == 200


def test_largest_request_has_room_beside_others_of_its_key(make_keyed: Callable[..., Keyed]) -> None:
    keyed = make_keyed()
    batcher = keyed.service.client.app.state.engine._batcher  # type: ignore[attr-defined]
    texts = [f"text {number}" for number in range(2048)]

    with batcher.admit(1000, "alice"):
        assert keyed.ask("alice", "POST", "/embed", json={"texts": texts}).status_code == 200


def test_bodies_in_memory(make_keyed: Callable[..., Keyed]) -> None:
    keyed = make_keyed(max_buffered_bytes_per_key=2048)
    embed = {"texts": ["a" * 3000]}

    refused(keyed.ask("alice", "POST", "/embed", json=embed), "max_buffered_bytes_per_key", 2048)
    assert keyed.ask("alice", "POST", "/embed", json={"texts": ["a"]}).status_code == 200
    assert keyed.service.client.app.state.body_budget.used == 0  # type: ignore[attr-defined]


def test_event_streams(make_keyed: Callable[..., Keyed]) -> None:
    keyed = make_keyed(max_event_streams_per_key=1)
    jobs = {owner: keyed.job(owner) for owner in ("alice", "bob")}
    for owner, job in jobs.items():
        keyed.ask(owner, "POST", f"/jobs/{job}/cancel")
    asked = {"headers": {"Accept": "text/event-stream"}}

    def follow(owner: str) -> Response:
        return keyed.ask(owner, "GET", f"/jobs/{jobs[owner]}/events", **asked)

    with backend(keyed).streams.hold(1, "alice"):
        refused(follow("alice"), "max_event_streams_per_key", 1)
        assert follow("bob").status_code == 200
    assert follow("alice").status_code == 200


def test_uploads(make_keyed: Callable[..., Keyed]) -> None:
    keyed = make_keyed(max_uploads_per_key=1)

    with backend(keyed).datasets.uploads.hold(1, "alice"):
        refused(upload(keyed, "alice"), "max_uploads_per_key", 1)
        assert upload(keyed, "bob").status_code == 202
    assert upload(keyed, "alice").status_code == 202


@on_both
def test_open_jobs(make_keyed: Callable[..., Keyed]) -> None:
    keyed = make_keyed(max_open_jobs_per_key=1)
    first = keyed.job("alice")
    body = keyed.service.request(owner="alice")

    for dry_run in (True, False):
        answer = keyed.ask("alice", "POST", "/finetune", json={**body, "dry_run": dry_run})
        refused(answer, "max_open_jobs_per_key", 1)
    keyed.job("bob")
    keyed.ask("alice", "POST", f"/jobs/{first}/cancel")
    assert keyed.ask("alice", "POST", "/finetune", json=body).status_code == 202
    refused(keyed.ask("alice", "POST", f"/jobs/{first}/retry"), "max_open_jobs_per_key", 1)


@on_both
def test_stored_bytes(make_keyed: Callable[..., Keyed]) -> None:
    size = len(ARCHIVE)
    keyed = make_keyed(max_stored_bytes_per_key=2 * size - 1)
    first = upload(keyed, "alice")
    assert first.status_code == 202

    refused(upload(keyed, "alice"), "max_stored_bytes_per_key", 2 * size - 1)
    assert len(keyed.ask("alice", "GET", "/datasets").json()["data"]) == 1
    assert len(list((keyed.service.settings.data_dir / "datasets").rglob("archive"))) == 1
    assert upload(keyed, "bob").status_code == 202
    assert keyed.ask("alice", "DELETE", f"/datasets/{first.json()['id']}").status_code == 200
    assert upload(keyed, "alice").status_code == 202


def test_stored_bytes_of_another_upload_that_ended_first(
    make_keyed: Callable[..., Keyed], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(ARCHIVE)
    keyed = make_keyed(max_stored_bytes_per_key=2 * size - 1)
    monkeypatch.setattr(backend(keyed).datasets, "_quota", lambda caller: None)  # both have begun
    assert upload(keyed, "alice").status_code == 202

    refused(upload(keyed, "alice"), "max_stored_bytes_per_key", 2 * size - 1)
    assert len(list((keyed.service.settings.data_dir / "datasets").rglob("archive"))) == 1


@on_both
def test_unchecked_data_sets(make_keyed: Callable[..., Keyed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sds_clip.app.store.datasets.MAX_UNCHECKED_PER_KEY", 2)
    keyed = make_keyed()
    first, second = (upload(keyed, "alice") for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)

    answer = upload(keyed, "alice", b"no archive, which nobody looks at any more")
    refused(answer, "max_unchecked_datasets_per_key", 2)
    assert "wait until some of its data sets are checked, or delete some" in answer.text
    assert upload(keyed, "bob").status_code == 202
    assert keyed.ask("alice", "DELETE", f"/datasets/{first.json()['id']}").status_code == 200
    assert upload(keyed, "alice").status_code == 202


def test_without_keys_there_are_no_limits_per_key(make_service: Callable[..., Service]) -> None:
    limits = (
        "requests", "items_per_s", "queue", "event_streams", "uploads", "open_jobs",
    )  # fmt: skip
    service = make_service(**{f"max_{name}_per_key": 1 for name in limits}, max_stored_bytes_per_key=0)

    service.finetune()
    service.finetune()
    for _ in range(2):
        assert service.client.post("/embed", json={"texts": TEXTS}).status_code == 200
    answer = service.client.post(
        "/datasets",
        data={"name": "set", "format": "winoground"},
        files={"file": ("a.tar", ARCHIVE)},
    )
    assert answer.status_code == 202


def test_place_of_a_key_is_free_again_however_its_operation_ends() -> None:
    streams = Budget(3, "event streams", per_key=1)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError), streams.hold(1, "alice"):
            raise ZeroDivisionError
    with streams.hold(1, "alice"), streams.hold(1, "bob"), streams.hold():
        assert streams.used == 3
    assert streams.used == 0
