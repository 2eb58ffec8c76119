"""Data sets: their checks, and the jobs that wait for them."""

from functools import partial
from importlib import import_module
from typing import Any

import pytest
from sqlalchemy import text

from sds_clip.app.errors import (
    ConfigurationError,
    JobStateConflict,
    KeyLimitReached,
    LeaseLost,
    Overloaded,
    RecordInUse,
    UnknownRecord,
    UnusableRecord,
)
from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.settings import MAX_ATTEMPTS, MAX_INTERRUPTIONS, MAX_RUN_TIME_S
from sds_clip.app.store import Store, datasets
from sds_clip.app.store.records import Dataset, DatasetStatus, Job, JobError, Json, NewWorker
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.app.store.verdicts import check_of
from sds_clip.app.store.workers import LIVING_S
from tests.app.store.conftest import FakeClock, at_once, submitted
from tests.checks import claimed_check


def added(store: Store, **options: Any) -> Dataset:
    return store.datasets.add(**{"format": "pairs", "source": {"upload": "a.tar"}, **options})


def checked(store: Store, dataset: Dataset) -> tuple[Job, ...]:
    lease = claimed_check(store)
    assert lease.job_id == check_of(dataset.id)
    return store.datasets.accept(lease, content_hash="abc", counts={"pairs": 3}, problems=[{"index": 1}])


def check(store: Store, dataset: Dataset) -> Job:
    """The job that checks it."""
    return store.jobs.get(check_of(dataset.id))


def problem(store: Store, dataset: Dataset) -> Json:
    """The one problem for which it was rejected."""
    rejected = store.datasets.get(dataset.id)
    assert rejected.status is DatasetStatus.REJECTED
    assert rejected.checked_at is not None
    (found,) = rejected.problems or ()
    return found


def test_checked_data_set_becomes_ready_and_its_check_succeeds(store: Store) -> None:
    dataset = added(store, owner="alice")
    assert dataset.status is DatasetStatus.VALIDATING
    assert checked(store, dataset) == ()
    ended = check(store, dataset)
    assert (ended.kind, ended.status, ended.owner) == (JobKind.CHECK, JobStatus.SUCCEEDED, "alice")
    assert (ended.config, ended.result) == ({"dataset": dataset.id}, {"status": "ready"})
    ready = store.datasets.get(dataset.id)
    assert (ready.status, ready.content_hash, ready.counts) == (DatasetStatus.READY, "abc", {"pairs": 3})
    assert ready.problems == [{"index": 1}]
    assert ready.checked_at is not None
    assert store.datasets.enlist_checks(FORMATS) == ()
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
    lease = claimed_check(store)
    [failed] = store.datasets.reject(lease, problems=[{"message": "no captions"}])
    assert (failed.id, failed.status) == (job.id, JobStatus.FAILED)
    assert failed.error
    assert (failed.error.code, failed.error.param) == ("dataset_rejected", "datasets")
    assert store.datasets.get(dataset.id).status is DatasetStatus.REJECTED
    assert (check(store, dataset).status, check(store, dataset).result) == (
        JobStatus.SUCCEEDED,
        {"status": "rejected"},
    )
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


def test_each_data_set_has_one_check_however_many_workers_look(store: Store) -> None:
    waiting = [added(store) for _ in range(3)]
    assert store.datasets.lack_checks(FORMATS)
    found = at_once(*[partial(store.datasets.enlist_checks, FORMATS)] * 5)
    ids = [job.id for jobs in found for job in jobs]
    assert sorted(ids) == sorted(check_of(each.id) for each in waiting)
    assert not store.datasets.lack_checks(FORMATS)


def test_check_of_a_dead_worker_is_done_by_another_and_only_its_verdict_counts(
    store: Store, clock: FakeClock
) -> None:
    dataset = added(store)
    dead = claimed_check(store)
    assert store.datasets.checks([dataset]) == {dataset.id: check(store, dataset)}
    clock.advance(61)
    alive = claimed_check(store)
    with pytest.raises(LeaseLost):
        store.datasets.accept(dead, content_hash="dead", counts={})
    store.datasets.accept(alive, content_hash="alive", counts={})
    assert store.datasets.reject(alive, problems=[]) == ()  # as if the answer to the first call was lost
    ready = store.datasets.get(dataset.id)
    assert (ready.status, ready.content_hash) == (DatasetStatus.READY, "alive")
    assert store.datasets.checks([ready]) == {}


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        ("process_died", "check_died"),
        ("internal_error", "check_died"),
        ("files_unreadable", "files_unreadable"),
    ],
)
def test_data_set_of_which_every_check_ends_with_an_error_is_rejected_for_it(
    store: Store, clock: FakeClock, cause: str, told: str
) -> None:
    dataset = added(store)
    job = submitted(store, datasets=(dataset.id,))
    for _ in range(MAX_ATTEMPTS):
        assert store.datasets.get(dataset.id).status is DatasetStatus.VALIDATING
        store.leases.fail(claimed_check(store), JobError(cause, "It ended."), retry_in_s=1.0)
        clock.advance(2)
    assert problem(store, dataset) == {
        "code": told,
        "message": "The data set could not be checked. It ended.",
    }
    assert check(store, dataset).status is JobStatus.FAILED
    assert store.jobs.get(job.id).status is JobStatus.FAILED
    assert store.datasets.enlist_checks(FORMATS) == ()


def test_machines_that_die_in_a_check_are_interruptions(store: Store, clock: FakeClock) -> None:
    dataset = added(store)
    for count in range(MAX_INTERRUPTIONS + 1):
        lease = claimed_check(store)
        assert store.jobs.get(lease.job_id).interruptions == count
        clock.advance(400)
    assert store.leases.claim(JobKind.CHECK, "checker", 60) is None
    rejected = problem(store, dataset)
    assert rejected["code"] == "interrupted_too_often"
    assert rejected["message"].endswith(
        "interrupted 101 times; see its events. Add the data set again to have it checked."
    )


def test_check_that_runs_for_longer_than_any_job_may_rejects_its_data(store: Store, clock: FakeClock) -> None:
    dataset = added(store)
    lease = claimed_check(store, ttl_s=2 * MAX_RUN_TIME_S)
    clock.advance(MAX_RUN_TIME_S + 1)
    store.leases.release(lease)
    assert problem(store, dataset)["code"] == "check_died"


def test_data_set_that_is_deleted_ends_its_check(store: Store) -> None:
    waiting, running = added(store), added(store)
    store.datasets.enlist_checks(FORMATS)
    store.datasets.delete(waiting.id)
    assert check(store, waiting).status is JobStatus.CANCELLED
    lease = claimed_check(store)
    store.datasets.delete(running.id)
    assert check(store, running).status is JobStatus.CANCELLING
    assert store.datasets.accept(lease, content_hash="abc", counts={}) == ()
    assert check(store, running).status is JobStatus.CANCELLED
    for each in (waiting, running):
        assert store.datasets.get(each.id).status is DatasetStatus.DELETED
        assert store.datasets.delete(each.id).status is DatasetStatus.DELETED


@pytest.mark.parametrize("ask", ["request_cancel", "request_pause", "request_retry"])
def test_check_ends_with_its_data_set_only(store: Store, ask: str) -> None:
    dataset = added(store)
    lease = claimed_check(store)
    with pytest.raises(JobStateConflict, match=f"check of the data set {dataset.id}"):
        getattr(store.jobs, ask)(lease.job_id)
    store.datasets.accept(lease, content_hash="abc", counts={})


def test_check_that_a_full_disk_has_paused_can_be_resumed(store: Store) -> None:
    dataset = added(store)
    store.leases.suspend(claimed_check(store), JobError("storage_full", "The disk is full."))
    store.jobs.request_resume(check_of(dataset.id))
    checked(store, dataset)


def test_checks_of_two_owners_take_turns(store: Store) -> None:
    """One has 50 data sets, and the other's one is next as soon as a slot is free."""
    for _ in range(50):
        added(store, owner="alice")
    first, second = claimed_check(store), claimed_check(store)
    added(store, owner="bob")
    store.datasets.accept(first, content_hash="abc", counts={})
    assert store.jobs.get(claimed_check(store).job_id).owner == "bob"
    store.datasets.accept(second, content_hash="abc", counts={})


def test_checks_are_no_jobs_of_their_owner_s(store: Store) -> None:
    dataset = added(store, owner="alice")
    store.datasets.enlist_checks(FORMATS)
    assert store.jobs.list().items == ()
    assert store.jobs.count_open("alice") == store.jobs.count(JobStatus.QUEUED) == 0
    [listed] = store.seen_by("alice").jobs.list(kind=JobKind.CHECK).items
    assert listed.id == check_of(dataset.id)
    assert store.seen_by("bob").jobs.list(kind=JobKind.CHECK).items == ()
    assert store.watch.states(0.0) == {}


def test_check_is_removed_a_month_after_its_end(store: Store, clock: FakeClock) -> None:
    dataset = added(store)
    checked(store, dataset)
    assert store.events.prune(30 * 86400) == 0
    clock.advance(31 * 86400)
    assert store.events.prune(30 * 86400) == 1
    with pytest.raises(UnknownRecord):
        check(store, dataset)
    assert store.datasets.get(dataset.id).status is DatasetStatus.READY
    assert store.datasets.enlist_checks(FORMATS) == ()


def of_before(store: Store, statement: str) -> None:
    """Let a worker of the release before do something."""
    with store.database.writing() as connection:
        connection.execute(text(statement))


def test_no_check_is_submitted_while_a_worker_of_the_release_before_lives(
    store: Store, clock: FakeClock
) -> None:
    added(store)
    store.workers.beat(NewWorker("old", "host", 7, JobKind.FINETUNE, "cpu", "0.9", 5.0))
    of_before(store, "UPDATE workers SET clock_skew_s = NULL")
    assert store.datasets.enlist_checks(FORMATS) == ()
    store.check_program()
    clock.advance(LIVING_S + 1)
    assert len(store.datasets.enlist_checks(FORMATS)) == 1


def test_program_that_does_not_know_checks_is_shut_out_once_there_is_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(store)
    store.datasets.enlist_checks(FORMATS)
    store.check_program()
    monkeypatch.setattr(import_module("sds_clip.app.store.migrate"), "NEWEST", "0014")
    with pytest.raises(ConfigurationError, match="too old for its database"):
        store.check_program()
    with pytest.raises(ConfigurationError, match="A newer version of this program"):
        store.migrate()


def test_check_that_a_worker_of_the_release_before_has_begun_is_left_to_it(
    store: Store, clock: FakeClock
) -> None:
    dataset = added(store)
    of_before(store, f"UPDATE datasets SET lease_owner = 'old', lease_until = {clock.now + 60}, fence = 1")
    assert not store.datasets.lack_checks(FORMATS)
    clock.advance(61)
    lease = claimed_check(store)
    of_before(store, "UPDATE datasets SET status = 'rejected', problems = '[]'")
    assert store.datasets.accept(lease, content_hash="abc", counts={}) == ()
    assert store.datasets.get(dataset.id).status is DatasetStatus.REJECTED
    assert check(store, dataset).status is JobStatus.SUCCEEDED


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


def test_bytes_of_an_owner_are_limited_in_the_transaction_that_accepts_its_files(store: Store) -> None:
    """Of three archives whose checks end at once, each of which unpacks to 4 bytes, two fit into 10."""
    for _ in range(3):
        added(store, owner="alice", size_bytes=1)
    values = {"content_hash": "abc", "counts": {}, "size_bytes": 4, "max_stored_bytes": 9}
    leases = [claimed_check(store) for _ in range(3)]
    answers = at_once(*(partial(store.datasets.accept, lease, **values) for lease in leases))
    (refused,) = [
        lease for lease, answer in zip(leases, answers, strict=True) if isinstance(answer, KeyLimitReached)
    ]
    assert store.jobs.get(refused.job_id).status is JobStatus.RUNNING
    assert store.datasets.stored_bytes("alice") == 4 + 4 + 1
    store.datasets.reject(refused, problems=[])
    assert store.datasets.stored_bytes("alice") == 8


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
    lease = claimed_check(store)
    assert lease.job_id == check_of(first.id)
    store.datasets.accept(lease, content_hash="0" * 64, counts={}, size_bytes=50)

    assert store.datasets.stored_bytes("alice") == 50
    assert store.datasets.stored_bytes("bob") == 0
