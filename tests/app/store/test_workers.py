"""The workers that say that they live."""

import pytest

from sds_clip.app.store import Store
from sds_clip.app.store.records import NewWorker
from sds_clip.app.store.states import JobKind
from tests.app.store.conftest import FakeClock, claimed, submitted
from tests.checks import claimed_check


def worker(id: str, queue: JobKind = JobKind.FINETUNE, device: str = "cpu") -> NewWorker:
    return NewWorker(id, "host", 7, queue, device, "1.0", started_at=5.0)


def test_worker_lives_for_three_heartbeats_and_is_forgotten_after_a_day(
    store: Store, clock: FakeClock
) -> None:
    store.workers.beat(worker("a", device="cuda:0,cuda:1"))
    store.workers.beat(worker("b", JobKind.EVALUATE))
    clock.advance(20)
    store.workers.beat(worker("b", JobKind.EVALUATE))
    assert store.workers.living_queues() == {"finetune": 2, "evaluate": 1, "check": 1}
    clock.advance(15)
    assert store.workers.living_queues() == {"evaluate": 1, "check": 1}
    assert [(each.id, each.alive) for each in store.workers.list()] == [("b", True), ("a", False)]
    clock.advance(24 * 3600)
    store.workers.beat(worker("c"))
    assert [each.id for each in store.workers.list()] == ["c"]


def test_worker_that_takes_no_jobs_goes_on_checking_data_sets(store: Store) -> None:
    store.workers.beat(worker("a", device="cuda:0"), out_because="its device computes wrong numbers")
    assert store.workers.living_queues() == {"check": 1}


def test_worker_that_has_stopped_is_gone_at_once(store: Store) -> None:
    store.workers.beat(worker("a"))
    store.workers.leave("a")
    assert store.workers.list() == ()
    assert store.workers.living_queues() == {}


def test_worker_is_shown_with_the_job_that_it_holds(store: Store) -> None:
    job = submitted(store)
    store.workers.beat(worker("a"))
    lease = claimed(store, owner="a")
    store.datasets.add(format="pairs", source={})
    claimed_check(store, owner="a")
    (seen,) = store.workers.list()
    assert (seen.job_id, seen.queue, seen.host, seen.pid, seen.version) == (
        job.id,
        "finetune",
        "host",
        7,
        "1.0",
    )
    assert seen.started_at == pytest.approx(5.0)
    store.leases.release(lease)
    assert store.workers.list()[0].job_id is None


def test_worker_of_a_job_is_silent_since_its_last_heartbeat(store: Store, clock: FakeClock) -> None:
    submitted(store)
    store.workers.beat(worker("a"))
    heard_at = store.workers.list()[0].seen_at
    lease = claimed(store, owner="a")
    clock.advance(25)
    assert store.workers.silent_since(store.jobs.get(lease.job_id)) is None
    clock.advance(10)
    assert store.workers.silent_since(store.jobs.get(lease.job_id)) == heard_at
    store.workers.beat(worker("a"))
    assert store.workers.silent_since(store.jobs.get(lease.job_id)) is None


def test_worker_whose_job_s_process_hangs_is_silent_since_the_end_of_the_lease(
    store: Store, clock: FakeClock
) -> None:
    submitted(store)
    lease = claimed(store, owner="a", ttl_s=60)
    job = store.jobs.get(lease.job_id)
    clock.advance(59)
    store.workers.beat(worker("a"))
    assert store.workers.silent_since(job) is None
    clock.advance(2)
    assert store.workers.silent_since(job) == job.lease_until
    store.leases.release(lease)
    assert store.workers.silent_since(store.jobs.get(job.id)) is None
