"""Data sets: their checks, and the jobs that wait for them."""

from functools import partial
from typing import Any

import pytest

from sds_clip.app.errors import (
    KeyLimitReached,
    LeaseLost,
    Overloaded,
    RecordInUse,
    UnknownRecord,
    UnusableRecord,
)
from sds_clip.app.settings import MAX_INTERRUPTIONS
from sds_clip.app.store import Store, datasets
from sds_clip.app.store.datasets import MAX_CHECKS
from sds_clip.app.store.records import Dataset, DatasetStatus, Job
from sds_clip.app.store.states import JobKind, JobStatus
from tests.app.store.conftest import FakeClock, at_once, claimed_check, submitted


def added(store: Store, **options: Any) -> Dataset:
    return store.datasets.add(**{"format": "pairs", "source": {"upload": "a.tar"}, **options})


def checked(store: Store, dataset: Dataset) -> tuple[Job, ...]:
    claimed = claimed_check(store)
    assert claimed.id == dataset.id
    return store.datasets.accept(claimed, content_hash="abc", counts={"pairs": 3}, problems=[{"index": 1}])


def test_checked_data_set_becomes_ready(store: Store) -> None:
    dataset = added(store)
    assert dataset.status is DatasetStatus.VALIDATING
    assert checked(store, dataset) == ()
    ready = store.datasets.get(dataset.id)
    assert (ready.status, ready.content_hash, ready.counts) == (DatasetStatus.READY, "abc", {"pairs": 3})
    assert ready.problems == [{"index": 1}]
    assert ready.checked_at is not None
    assert store.datasets.claim_check("checker", 60) is None
    assert [each.id for each in store.datasets.list(status=DatasetStatus.READY).items] == [dataset.id]


def test_job_waits_until_all_its_data_is_checked(store: Store) -> None:
    first, second = added(store), added(store)
    job = submitted(store, datasets=(first.id, second.id))
    assert job.status is JobStatus.VALIDATING
    assert store.leases.claim(JobKind.FINETUNE, "slot", 60) is None
    assert checked(store, first) == ()
    assert [queued.id for queued in checked(store, second)] == [job.id]
    queued = store.jobs.get(job.id)
    assert queued.status is JobStatus.QUEUED
    assert queued.queued_at is not None
    for each in (first, second):
        with pytest.raises(RecordInUse):
            store.datasets.delete(each.id)


def test_job_over_ready_data_is_queued_at_once(store: Store) -> None:
    dataset = added(store)
    checked(store, dataset)
    assert submitted(store, datasets=(dataset.id,)).status is JobStatus.QUEUED


def test_rejected_data_set_fails_the_jobs_that_wait_for_it(store: Store) -> None:
    dataset = added(store)
    job, cancelled = submitted(store, datasets=(dataset.id,)), submitted(store, datasets=(dataset.id,))
    store.jobs.request_cancel(cancelled.id)
    claimed = claimed_check(store)
    [failed] = store.datasets.reject(claimed, problems=[{"message": "no captions"}])
    assert (failed.id, failed.status) == (job.id, JobStatus.FAILED)
    assert failed.error
    assert (failed.error.code, failed.error.param) == ("dataset_rejected", "datasets")
    assert store.datasets.get(dataset.id).status is DatasetStatus.REJECTED
    with pytest.raises(UnusableRecord, match="rejected"):
        submitted(store, datasets=(dataset.id,))


def test_data_set_is_not_deleted_under_an_open_job(store: Store) -> None:
    dataset = added(store)
    job = submitted(store, datasets=(dataset.id,))
    with pytest.raises(RecordInUse, match=job.id):
        store.datasets.delete(dataset.id)
    store.jobs.request_cancel(job.id)
    gone = store.datasets.delete(dataset.id)
    assert gone.status is DatasetStatus.DELETED
    assert store.datasets.delete(dataset.id) == gone
    with pytest.raises(UnusableRecord, match="deleted"):
        submitted(store, datasets=(dataset.id,))


def test_check_whose_process_died_is_done_by_another(store: Store, clock: FakeClock) -> None:
    dataset = added(store)
    dead = claimed_check(store)
    assert store.datasets.claim_check("checker", 60) is None
    clock.advance(50)
    assert store.datasets.renew_check(dead, 60)
    clock.advance(50)
    assert store.datasets.claim_check("checker", 60) is None
    clock.advance(11)
    alive = claimed_check(store)
    assert not store.datasets.renew_check(dead, 60)
    with pytest.raises(LeaseLost):
        store.datasets.accept(dead, content_hash="dead", counts={})
    store.datasets.accept(alive, content_hash="alive", counts={})
    with pytest.raises(LeaseLost):
        store.datasets.reject(alive, problems=[])
    assert store.datasets.get(dataset.id).content_hash == "alive"


def test_data_set_that_kills_its_checkers_is_rejected(store: Store) -> None:
    dataset = added(store)
    job = submitted(store, datasets=(dataset.id,))
    for _ in range(MAX_CHECKS):
        assert store.datasets.claim_check("checker", 60) is not None
        store.datasets.check_died("another")
        assert store.datasets.claim_check("checker", 60) is None
        store.datasets.check_died("checker")
    assert store.datasets.claim_check("checker", 60) is None
    rejected = store.datasets.get(dataset.id)
    (problem,) = rejected.problems or ()
    assert (rejected.status, problem["code"]) == (DatasetStatus.REJECTED, "check_died")
    assert store.jobs.get(job.id).status is JobStatus.FAILED


def test_machines_that_die_in_a_check_are_interruptions(store: Store, clock: FakeClock) -> None:
    dataset = added(store)
    for count in range(MAX_INTERRUPTIONS + 1):
        claimed = claimed_check(store)
        assert (claimed.attempt, claimed.interruptions) == (0, count)
        clock.advance(61)
    assert store.datasets.claim_check("checker", 60) is None
    (problem,) = store.datasets.get(dataset.id).problems or ()
    assert problem["code"] == "interrupted_too_often"


def test_check_that_was_stopped_on_purpose_is_free_at_once_and_was_no_try(store: Store) -> None:
    dataset = added(store)
    for _ in range(5):
        stopped = claimed_check(store)
        assert store.datasets.release_check(stopped)
        assert not store.datasets.release_check(stopped)
        assert not store.datasets.renew_check(stopped, 60)
        assert stopped.interruptions == 0
    with pytest.raises(LeaseLost):
        store.datasets.accept(stopped, content_hash="stopped", counts={})
    assert store.datasets.get(dataset.id).attempt == 0
    checked(store, dataset)


def test_check_with_a_verdict_or_another_holder_is_not_given_back(store: Store, clock: FakeClock) -> None:
    dataset = added(store)
    dead = claimed_check(store)
    clock.advance(61)
    alive = claimed_check(store)
    assert not store.datasets.release_check(dead)
    assert store.datasets.claim_check("checker", 60) is None
    store.datasets.accept(alive, content_hash="alive", counts={})
    assert not store.datasets.release_check(alive)
    assert store.datasets.get(dataset.id).status is DatasetStatus.READY


def test_check_of_a_deleted_data_set_comes_to_nothing(store: Store) -> None:
    dataset = added(store)
    claimed = claimed_check(store)
    store.datasets.delete(dataset.id)
    with pytest.raises(LeaseLost):
        store.datasets.accept(claimed, content_hash="abc", counts={})
    assert store.datasets.claim_check("checker", 60) is None


def test_data_sets_are_paged_and_unknown_ones_named(store: Store) -> None:
    ids = [added(store).id for _ in range(3)]
    first = store.datasets.list(limit=2)
    assert ([each.id for each in first.items], first.has_more) == ([ids[2], ids[1]], True)
    assert [each.id for each in store.datasets.list(after=ids[1]).items] == [ids[0]]
    store.datasets.delete(ids[1])
    left = store.datasets.list(limit=2)
    assert ([each.id for each in left.items], left.has_more) == ([ids[2], ids[0]], False)
    assert [each.id for each in store.datasets.list(status=DatasetStatus.DELETED).items] == [ids[1]]
    for ask in (store.datasets.get, store.datasets.delete):
        with pytest.raises(UnknownRecord) as caught:
            ask("ds_none")
        assert caught.value.code == "dataset_not_found"


def test_bytes_of_an_owner_are_limited_in_the_transaction_that_adds_them(store: Store) -> None:
    """Of many simultaneous uploads of 4 bytes, two fit into 10."""
    add = partial(added, store, owner="alice", size_bytes=4, max_stored_bytes=10)
    answers = at_once(*[add] * 5)
    assert [isinstance(answer, KeyLimitReached) for answer in answers].count(True) == 3
    assert store.datasets.stored_bytes("alice") == 8
    added(store, owner="bob", size_bytes=10, max_stored_bytes=10)


def test_unchecked_data_sets_are_limited_in_the_transaction_that_adds_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "MAX_UNCHECKED_PER_KEY", 2)
    monkeypatch.setattr(datasets, "MAX_UNCHECKED", 4)
    answers = at_once(*[partial(added, store, owner="alice")] * 5)
    assert [isinstance(answer, KeyLimitReached) for answer in answers].count(True) == 3
    store.datasets.reject(claimed_check(store), problems=[])
    for owner in ("alice", "", ""):
        store.datasets.check_room(owner)
        added(store, owner=owner)
    for owner in ("bob", ""):
        with pytest.raises(Overloaded, match="has 4 data sets to check") as full:
            store.datasets.check_room(owner)
        assert not isinstance(full.value, KeyLimitReached)
        assert full.value.retry_after_s


def test_only_data_sets_with_files_count_as_stored_and_with_their_unpacked_size(store: Store) -> None:
    first = added(store, owner="alice", size_bytes=1)
    deleted = added(store, owner="alice", size_bytes=100)
    added(store, owner="alice")
    store.datasets.delete(deleted.id)
    claimed = claimed_check(store)
    assert claimed.id == first.id
    store.datasets.accept(claimed, content_hash="0" * 64, counts={}, size_bytes=50)

    assert store.datasets.stored_bytes("alice") == 50
    assert store.datasets.stored_bytes("bob") == 0
