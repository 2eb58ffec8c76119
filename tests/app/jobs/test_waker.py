"""Wake-ups by a real broker, and without one."""

import time
from collections.abc import Callable, Iterator

import pytest
import redis

from app.jobs.waker import Waker
from app.store.states import JobKind
from tests.app.jobs.conftest import Service
from worker.valkey import Valkey

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


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_accepted_job_wakes_a_worker_of_its_kind(
    make_service: Callable[..., Service], broker: Valkey
) -> None:
    service = make_service(broker_url=broker.url)
    before = _waiting(broker, "finetune")

    service.finetune()

    _until(lambda: _waiting(broker, "finetune") == before + 1)
    assert _waiting(broker, "evaluate") == 0


def test_job_whose_data_are_being_checked_wakes_nobody(
    make_service: Callable[..., Service], broker: Valkey
) -> None:
    service = make_service(broker_url=broker.url)
    before = _waiting(broker, "finetune")
    job = service.finetune()
    added = service.store.datasets.add(name="new", format="pairs", source={}, folder=None)

    waiting = service.finetune(training_data=added.id)
    service.client.post(f"/jobs/{job['id']}/pause")
    service.client.post(f"/jobs/{job['id']}/resume")

    _until(lambda: _waiting(broker, "finetune") == before + 2)  # accepted, and resumed
    assert service.client.get(f"/jobs/{waiting['id']}").json()["status"] == "validating"


def test_broker_that_is_away_holds_nothing_up_and_loses_no_job(make_service: Callable[..., Service]) -> None:
    service = make_service(broker_url=NOBODY)

    job = service.finetune()

    assert service.store.jobs.get(job["id"]).status == "queued"


def test_wake_ups_that_wait_become_one(broker: Valkey) -> None:
    before = _waiting(broker, "evaluate")
    waker = Waker(broker.url)
    for _ in range(5):
        waker.wake(JobKind.EVALUATE)

    waker.start()
    waker.close()

    assert _waiting(broker, "evaluate") == before + 1


def test_without_a_broker_nothing_is_published() -> None:
    waker = Waker(None)
    waker.start()
    waker.wake(JobKind.FINETUNE)
    waker.close()
