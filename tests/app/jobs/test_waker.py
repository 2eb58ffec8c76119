"""Wake-ups by a real broker, and without one."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from sds_clip.app.jobs.waker import Waker
from sds_clip.app.store.states import JobKind
from sds_clip.worker.valkey import Valkey
from tests.app.datasets.archives import tar_of
from tests.app.jobs.conftest import Service
from tests.worker.waiting import until

NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path_factory.mktemp("valkey"))
    valkey.start()
    yield valkey
    valkey.stop()


def _waiting(broker: Valkey, queue: str) -> int:
    with redis.Redis.from_url(broker.url.replace("redis+socket://", "unix://")) as client:
        return int(client.llen(queue))  # type: ignore[arg-type]


def test_accepted_job_wakes_a_worker_of_its_kind(
    make_service: Callable[..., Service], broker: Valkey
) -> None:
    service = make_service(broker_url=broker.url)
    before = _waiting(broker, "finetune")

    service.finetune()

    until(lambda: _waiting(broker, "finetune") == before + 1)
    assert _waiting(broker, "evaluate") == 0


def test_job_whose_data_are_being_checked_wakes_nobody(
    make_service: Callable[..., Service], broker: Valkey
) -> None:
    service = make_service(broker_url=broker.url)
    before = _waiting(broker, "finetune")
    job = service.finetune()
    added = service.store.datasets.add(name="new", format="pairs", source={})

    waiting = service.finetune(training_data=added.id)
    service.client.post(f"/jobs/{job['id']}/pause")
    service.client.post(f"/jobs/{job['id']}/resume")

    until(lambda: _waiting(broker, "finetune") == before + 2)  # accepted, and resumed
    assert service.client.get(f"/jobs/{waiting['id']}").json()["status"] == "validating"


def test_new_data_set_wakes_a_worker_for_its_check(
    make_service: Callable[..., Service], broker: Valkey, roots: Path
) -> None:
    service = make_service(broker_url=broker.url)
    form = {"data": {"format": "pairs"}, "files": {"file": ("a.tar", tar_of({"a.png": b""}))}}
    sent = [
        service.client.post("/datasets", **form),
        service.client.post("/datasets", json={"format": "pairs", "source": str(roots)}),
    ]
    assert [answer.status_code for answer in sent] == [202, 202]

    until(lambda: _waiting(broker, "check") == 2)


def test_broker_that_is_away_holds_nothing_up_and_loses_no_job(make_service: Callable[..., Service]) -> None:
    service = make_service(broker_url=NOBODY)

    job = service.finetune()

    assert service.store.jobs.get(job["id"]).status == "queued"


def test_wake_up_names_its_job(make_service: Callable[..., Service], broker: Valkey) -> None:
    service = make_service(broker_url=broker.url)
    before = _waiting(broker, "finetune")

    job = service.finetune()

    until(lambda: _waiting(broker, "finetune") == before + 1)
    with redis.Redis.from_url(broker.url.replace("redis+socket://", "unix://")) as client:
        newest = client.lindex("finetune", 0)
    args, *_ = json.loads(base64.b64decode(json.loads(newest)["body"]))  # type: ignore[arg-type]
    assert args == [job["id"]]


def test_wake_ups_are_dropped_while_the_broker_is_away(make_service: Callable[..., Service]) -> None:
    service = make_service()
    jobs = [service.store.jobs.get(service.finetune()["id"]) for _ in range(3)]
    waker = Waker(NOBODY)
    for job in jobs:
        waker.wake(job.kind, job.id)

    waker.start()
    until(lambda: not waker._waiting)
    waker.close()


def test_without_a_broker_nothing_is_published(make_service: Callable[..., Service]) -> None:
    service = make_service()
    waker = Waker(None)
    waker.start()
    waker.wake(JobKind.FINETUNE, service.finetune()["id"])
    waker.close()
