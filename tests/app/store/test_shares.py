"""Whose job is next: owners share the slots by what they have used, jobs of one owner go by priority and age."""

import heapq
import random

import pytest
from sqlalchemy import select

from sds_clip.app.errors import LeaseLost
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, Lease
from sds_clip.app.store.shares import PERIOD_S
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.app.store.tables import slot_use
from tests.app.store.conftest import FakeClock, claimed, submitted

DAY_S = 24 * 3600.0
WEIGHTS = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 2.0, "e": 3.0}


def next_owner(store: Store) -> str:
    job = store.leases.claim(JobKind.FINETUNE, "slot", 1e6)
    assert job is not None
    return job.owner


def run_for(store: Store, clock: FakeClock, owner: str, seconds: float) -> Job:
    """Let an owner's job hold a slot for some time."""
    job = submitted(store, owner=owner, max_run_time_s=1e9)
    lease = claimed(store, ttl_s=1e6)
    clock.advance(seconds)
    return store.leases.succeed(lease) if lease.job_id == job.id else pytest.fail("another job was next")


def test_job_of_the_owner_that_has_used_least_is_next_however_many_wait_before_it(
    store: Store, clock: FakeClock
) -> None:
    run_for(store, clock, "alice", 100)
    for _ in range(20):
        submitted(store, owner="alice")
    submitted(store, owner="bob")
    assert [next_owner(store) for _ in range(2)] == ["bob", "alice"]


def test_owners_that_have_used_nothing_are_served_by_age(store: Store) -> None:
    for owner in ("zoe", "alice", "mia"):
        submitted(store, owner=owner)
    assert [next_owner(store) for _ in range(3)] == ["zoe", "alice", "mia"]


def test_job_that_needs_more_devices_than_a_slot_has_is_passed_over_and_ends_no_turn(
    store: Store, clock: FakeClock
) -> None:
    submitted(store, owner="alice")
    lease = claimed(store, ttl_s=1e6)
    clock.advance(7200)
    large = submitted(store, owner="bob", devices=2)
    submitted(store, owner="alice")
    assert not store.leases.end_turn(lease)
    assert next_owner(store) == "alice"
    assert store.leases.next_due(JobKind.FINETUNE) is None
    assert store.leases.end_turn(lease, devices=2)
    taken = store.leases.claim(JobKind.FINETUNE, "slot", 60, devices=2)
    assert taken is not None
    assert taken.id == large.id


def test_use_is_of_one_kind_and_halves_with_time(store: Store, clock: FakeClock) -> None:
    run_for(store, clock, "alice", 4 * 3600)
    run_for(store, clock, "bob", 3 * 3600)
    for owner in ("alice", "bob", "alice", "bob"):
        submitted(store, owner=owner, kind=JobKind.EVALUATE)
        submitted(store, owner=owner)
    first = store.leases.claim(JobKind.EVALUATE, "slot", 60)
    assert first is not None
    assert first.owner == "alice"  # nothing was evaluated before
    assert next_owner(store) == "bob"
    store.leases.succeed(Lease.of(first))
    clock.advance(2 * DAY_S)  # bob's is at work all the while
    assert next_owner(store) == "alice"


def test_use_of_long_ago_is_forgotten(store: Store, clock: FakeClock) -> None:
    run_for(store, clock, "alice", 100)
    clock.advance(29 * DAY_S)
    run_for(store, clock, "bob", 100)
    store.leases.forget_use()
    with store.database.reading() as connection:
        periods = connection.execute(select(slot_use.c.period)).scalars().all()
    assert periods == [int(clock.now // PERIOD_S)]


def test_turn_ends_only_if_a_job_of_another_owner_is_next_without_it(store: Store, clock: FakeClock) -> None:
    run_for(store, clock, "bob", 500)
    submitted(store, owner="alice")
    lease = claimed(store, ttl_s=1e6)
    clock.advance(400)
    submitted(store, owner="alice")
    assert not store.leases.end_turn(lease)  # nobody else waits
    submitted(store, owner="bob")
    assert not store.leases.end_turn(lease)  # bob has used more
    assert not store.leases.end_turn(lease, {"alice": 3.0})
    clock.advance(200)
    assert store.leases.end_turn(lease)
    assert store.jobs.get(lease.job_id).status is JobStatus.RUNNING
    left = store.leases.release(lease)
    assert (left.status, left.attempt, left.interruptions) == (JobStatus.QUEUED, 0, 0)
    assert "Its turn was over" in store.events.transitions(left.id)[-1].message
    assert next_owner(store) == "bob"
    again = claimed(store)
    assert (again.job_id, store.jobs.get(left.id).turn_over_at) == (left.id, None)
    with pytest.raises(LeaseLost):
        store.leases.end_turn(lease)
    assert store.leases.release(again).interruptions == 1


def test_turn_of_a_job_that_stops_anyway_does_not_end(store: Store, clock: FakeClock) -> None:
    submitted(store, owner="alice")
    lease = claimed(store)
    clock.advance(30)
    submitted(store, owner="bob")
    store.jobs.request_pause(lease.job_id)
    assert not store.leases.end_turn(lease)
    assert store.leases.release(lease).status is JobStatus.PAUSED


@pytest.mark.parametrize("slots", [1, 3])
def test_five_owners_that_always_have_jobs_share_a_day_by_their_weights(
    store: Store, clock: FakeClock, slots: int
) -> None:
    rng = random.Random(slots)
    begun, used = clock.now, dict.fromkeys(WEIGHTS, 0.0)
    at_work: list[tuple[float, str, Lease]] = []

    def fill() -> None:
        while len(at_work) < slots:
            job = store.leases.claim(JobKind.FINETUNE, "slot", 1e6, weights=WEIGHTS)
            assert job is not None
            heapq.heappush(at_work, (clock.now + rng.uniform(10, 600), job.owner, Lease.of(job)))
            submitted(store, owner=job.owner)

    for owner in WEIGHTS:
        for _ in range(slots):
            submitted(store, owner=owner)
    fill()
    while at_work[0][0] < begun + DAY_S:
        until, owner, lease = heapq.heappop(at_work)
        clock.now = max(clock.now, until)
        used[owner] += store.leases.succeed(lease).run_time_s
        fill()
    total, weights = sum(used.values()), sum(WEIGHTS.values())
    shared = {owner: used[owner] / total / (weight / weights) for owner, weight in WEIGHTS.items()}
    assert shared == {owner: pytest.approx(1, abs=0.1) for owner in WEIGHTS}, shared
