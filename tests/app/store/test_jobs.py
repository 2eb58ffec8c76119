"""Jobs from the callers' side."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from sds_clip.app.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    InputsGone,
    JobStateConflict,
    UnknownRecord,
    UnusableRecord,
)
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, JobError, NewVersion
from sds_clip.app.store.states import JobKind, JobStatus
from tests.app.store.conftest import FakeClock, at_once, begun, claimed, new_job, submitted
from tests.checks import claimed_check
from tests.databases import Databases


def test_submitted_job_is_read_back_as_it_was_given(store: Store) -> None:
    request = {"base": "demo", "hyperparameters": {"lr": 1e-5, "n": [1, None, True, "ü\u0000\ud800"]}}
    job = submitted(
        store, request=request, config={"steps": 3}, seed=2**62, suffix="a\0b\ud800", metadata={"k": "v"}
    )
    assert store.jobs.get(job.id) == job
    assert job.status is JobStatus.QUEUED
    assert job.request == request
    assert (job.config, job.seed, job.metadata) == ({"steps": 3}, 2**62, {"k": "v"})
    assert job.suffix == "a\ufffdb?"
    assert (job.attempt, job.fence, job.lease_owner, job.started_at) == (0, 0, None, None)


def test_numbers_that_json_lacks_become_null(store: Store) -> None:
    job = submitted(store, request={"lr": [float("nan"), float("inf"), 1.0]})
    assert store.jobs.get(job.id).request == {"lr": [None, None, 1.0]}


def test_unknown_jobs_are_named_as_such(store: Store) -> None:
    for ask in (store.jobs.get, store.jobs.request_cancel, store.events.events, store.events.metrics):
        with pytest.raises(UnknownRecord) as caught:
            ask("job_\0nothing")
        assert (caught.value.status, caught.value.code) == (404, "job_not_found")


def test_pages_of_any_size_and_place_are_asked_for(store: Store) -> None:
    job = submitted(store)
    assert len(store.jobs.list(limit=-5).items) == len(store.jobs.list(limit=10**30).items) == 1
    assert store.events.events(job.id, after=10**30) == ()
    assert len(store.events.events(job.id, after=-(10**30), limit=-1)) == 1
    assert store.events.metrics(job.id, after=10**30, limit=10**30) == ()
    assert store.aliases.promotions(limit=0) == ()


def test_same_key_and_request_replays_the_job(store: Store) -> None:
    new = new_job(idempotency_key="k", owner="alice", request={"a": 1, "b": 2})
    assert store.jobs.earlier(new) is None
    job, is_new = store.jobs.submit(new)
    again, again_is_new = store.jobs.submit(
        new_job(idempotency_key="k", owner="alice", request={"b": 2, "a": 1})
    )
    assert (is_new, again_is_new) == (True, False)
    assert again == job == store.jobs.earlier(new)


def test_same_key_with_another_request_is_refused(store: Store) -> None:
    submitted(store, idempotency_key="k", owner="alice")
    for other in (new_job(request={"base": "other"}), new_job(JobKind.EVALUATE)):
        with pytest.raises(IdempotencyMismatch) as caught:
            store.jobs.submit(replace(other, idempotency_key="k", owner="alice"))
        assert caught.value.status == 422
    assert len(store.jobs.list().items) == 1


def test_keys_of_different_owners_and_jobs_without_a_key_do_not_meet(store: Store) -> None:
    ids = {
        submitted(store, **options).id
        for options in (
            {"idempotency_key": "k", "owner": "alice"},
            {"idempotency_key": "k", "owner": "bob"},
            {"idempotency_key": "k"},
            {"owner": "alice"},
            {"owner": "alice"},
        )
    }
    assert len(ids) == 5


def test_one_of_many_simultaneous_submissions_with_a_key_makes_the_job(store: Store) -> None:
    answers = at_once(*[partial(store.jobs.submit, new_job(idempotency_key="k"))] * 8)
    outcomes = [answer for answer in answers if not isinstance(answer, IdempotencyInFlight)]
    assert [is_new for _, is_new in outcomes].count(True) == 1
    assert len({job.id for job, _ in outcomes}) == 1
    assert len(store.jobs.list().items) == 1


def test_key_that_is_being_submitted_is_in_flight(
    postgresql_databases: Databases, make_store: Callable[..., Store]
) -> None:
    # SQLite lets one transaction write at a time: there the second waits, then replays.
    store = make_store(postgresql_databases.url(postgresql_databases.migrated()))
    new = new_job(idempotency_key="k")
    with store.database.writing() as connection:
        store.jobs._earlier(connection, new)  # takes the key, as a submission does first
        with pytest.raises(IdempotencyInFlight) as caught:
            store.jobs.submit(new)
    assert (caught.value.status, caught.value.retryable) == (409, True)
    assert store.jobs.submit(new)[1]


@pytest.mark.parametrize("which", ["datasets", "versions"])
def test_job_over_something_unknown_is_refused_and_leaves_nothing(store: Store, which: str) -> None:
    with pytest.raises(UnusableRecord, match="unknown") as caught:
        submitted(store, **{which: ("ds_1",)})
    assert caught.value.param == which
    assert store.jobs.list().items == ()


def test_list_pages_newest_first_without_gaps_or_repeats(store: Store) -> None:
    ids = [submitted(store).id for _ in range(7)]
    seen, after = [], None
    while True:
        page = store.jobs.list(after=after, limit=3)
        seen += [job.id for job in page.items]
        if not page.has_more:
            break
        after = seen[-1]
        submitted(store)  # what comes meanwhile stands before the first page
    assert seen == ids[::-1]


def test_list_filters_by_kind_and_status(store: Store) -> None:
    tune, evaluate = submitted(store), submitted(store, kind=JobKind.EVALUATE)
    cancelled = store.jobs.request_cancel(submitted(store).id)
    listed = store.jobs.list

    def ids(**options: Any) -> list[str]:
        return [job.id for job in listed(**options).items]

    assert ids(kind=JobKind.EVALUATE) == [evaluate.id]
    assert ids(status=JobStatus.CANCELLED) == [cancelled.id]
    assert ids(kind=JobKind.FINETUNE, status=JobStatus.QUEUED) == [tune.id]
    assert ids(kind=JobKind.EVALUATE, status=JobStatus.CANCELLED) == []
    assert store.jobs.count(JobStatus.QUEUED) == 2
    assert store.jobs.count(JobStatus.QUEUED, JobKind.EVALUATE) == 1


def test_list_after_an_unknown_job_names_the_parameter(store: Store) -> None:
    with pytest.raises(UnknownRecord) as caught:
        store.jobs.list(after="job_x")
    assert caught.value.param == "after"


def test_cancelled_in_the_queue_ends_at_once(store: Store) -> None:
    job = store.jobs.request_cancel(submitted(store).id)
    assert job.status is JobStatus.CANCELLED
    assert job.finished_at is not None
    assert store.leases.claim(JobKind.FINETUNE, "slot", 60) is None
    assert store.jobs.request_cancel(job.id) == job


def test_requests_that_do_not_fit_the_status_say_so(store: Store) -> None:
    job = submitted(store)
    store.leases.fail(claimed(store), JobError("boom", "Boom."))
    for ask in (store.jobs.request_cancel, store.jobs.request_pause, store.jobs.request_resume):
        with pytest.raises(JobStateConflict, match="failed") as caught:
            ask(job.id)
        assert caught.value.status == 409


def test_next_due_is_what_a_claim_would_take_and_is_left_as_it_is(store: Store, clock: FakeClock) -> None:
    running = submitted(store)
    claimed(store, ttl_s=60)
    assert store.leases.next_due(JobKind.FINETUNE) is None
    other = submitted(store, kind=JobKind.EVALUATE)
    queued = submitted(store)
    assert store.leases.next_due(JobKind.FINETUNE) == queued
    assert store.leases.next_due(JobKind.EVALUATE) == other
    clock.advance(60)
    due = store.leases.next_due(JobKind.FINETUNE)
    assert due is not None
    assert (due.id, due.fence) == (running.id, 1)


def test_job_that_backs_off_is_next_only_when_it_is_due(store: Store, clock: FakeClock) -> None:
    job = submitted(store)
    store.leases.fail(claimed(store), JobError("boom", "Boom."), retry_in_s=100)
    clock.advance(50)
    assert store.leases.next_due(JobKind.FINETUNE) is None
    clock.advance(60)
    due = store.leases.next_due(JobKind.FINETUNE)
    assert due is not None
    assert due.id == job.id


def test_store_of_another_process_sees_the_job(url: str, make_store: Callable[..., Store]) -> None:
    job = submitted(make_store(url))
    assert make_store(url).jobs.get(job.id) == job


def ended(store: Store, how: str, **options: Any) -> Job:
    """A job that has run, and has ended so."""
    lease = begun(store, **options)
    if how == "failed":
        return store.leases.fail(lease, JobError("boom", "Boom."))
    if how == "cancelled":
        store.jobs.request_cancel(lease.job_id)
        return store.leases.release(lease)
    return store.leases.succeed(lease)


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_ended_job_is_taken_up_again_with_all_that_it_may_use_up(
    store: Store, clock: FakeClock, how: str
) -> None:
    job = ended(store, how, max_attempts=1, max_run_time_s=50.0)
    clock.advance(3600)
    again = store.jobs.request_retry(job.id)
    assert (again.status, again.attempt, again.interruptions, again.run_time_s, again.furthest_step) == (
        JobStatus.QUEUED,
        0,
        0,
        0.0,
        0,
    )
    assert (again.error, again.finished_at, again.cancel_requested_at) == (None, None, None)
    assert store.jobs.request_retry(job.id) == again
    lease = claimed(store)
    assert (lease.job_id, lease.fence) == (job.id, 2)
    assert store.jobs.request_retry(job.id).status is JobStatus.RUNNING
    assert store.leases.succeed(lease).status is JobStatus.SUCCEEDED
    numbers = [event.number for event in store.events.events(job.id)]
    assert numbers == list(range(1, len(numbers) + 1)), "its events are kept"


@pytest.mark.parametrize("state", ["succeeded", "paused", "pausing", "cancelling"])
def test_job_in_any_other_state_is_not_retried(store: Store, state: str) -> None:
    lease = begun(store)
    if state == "succeeded":
        store.leases.succeed(lease)
    else:
        ask = store.jobs.request_cancel if state == "cancelling" else store.jobs.request_pause
        ask(lease.job_id)
        if state == "paused":
            store.leases.release(lease)
    assert store.jobs.get(lease.job_id).status == state
    with pytest.raises(JobStateConflict, match="cannot be retried"):
        store.jobs.request_retry(lease.job_id)


def test_retry_needs_the_data_sets_and_versions_of_the_job(store: Store) -> None:
    data = store.datasets.add(name="a", format="pairs", source={})
    store.datasets.accept(claimed_check(store), content_hash="0", counts={})
    store.versions.register(NewVersion("v1", "v1", {}, 1))
    first = ended(store, "failed", datasets=(data.id,))
    second = ended(store, "failed", versions=("v1",))
    store.datasets.delete(data.id)
    store.versions.delete("v1")
    for job in (first, second):
        with pytest.raises(InputsGone) as caught:
            store.jobs.request_retry(job.id)
        assert (caught.value.status, caught.value.code) == (409, "inputs_gone")
        assert store.jobs.get(job.id) == job


def test_retried_job_waits_for_a_data_set_whose_check_has_not_ended(store: Store) -> None:
    data = store.datasets.add(name="a", format="pairs", source={})
    job = submitted(store, datasets=(data.id,))
    store.jobs.request_cancel(job.id)
    assert store.jobs.request_retry(job.id).status is JobStatus.VALIDATING
    store.datasets.accept(claimed_check(store), content_hash="0", counts={})
    assert store.jobs.get(job.id).status is JobStatus.QUEUED


def test_retried_job_that_keeps_its_files_keeps_its_progress(store: Store) -> None:
    lease = begun(store)
    store.leases.progress(lease, stage="training", step=335, steps=20_000, estimated_finish=9e9)
    store.leases.fail(lease, JobError("boom", "Boom."))
    retried = store.jobs.request_retry(lease.job_id)
    assert (retried.stage, retried.step, retried.steps) == ("training", 335, 20_000)
    assert retried.estimated_finish is None


def test_files_of_an_ended_job_are_withheld_from_a_retry(store: Store) -> None:
    lease = begun(store)
    store.leases.progress(lease, stage="training", step=335, steps=20_000, estimated_finish=9e9)
    store.leases.fail(lease, JobError("boom", "Boom."))
    with (
        pytest.raises(JobStateConflict, match="too recently"),
        store.jobs.withheld(lease.job_id, ended_for_s=60),
    ):
        pytest.fail("somebody may look at them")
    with store.jobs.withheld(lease.job_id) as withheld:
        assert withheld.files_removed_at is not None
    assert store.jobs.get(lease.job_id).files_removed_at == withheld.files_removed_at
    with store.jobs.withheld(lease.job_id, ended_for_s=60) as again:
        assert again.files_removed_at == withheld.files_removed_at
    retried = store.jobs.request_retry(lease.job_id)
    assert retried.files_removed_at is None
    assert (retried.stage, retried.step, retried.steps, retried.estimated_finish) == (None, 0, None, None)
    assert "starts from the beginning" in store.events.transitions(lease.job_id)[-2].message
    with pytest.raises(JobStateConflict), store.jobs.withheld(lease.job_id):
        pytest.fail("it may be running")


def test_files_of_a_job_that_ended_by_a_clock_ahead_can_be_removed(store: Store, clock: FakeClock) -> None:
    lease = begun(store)
    store.leases.fail(lease, JobError("boom", "Boom."))
    clock.advance(-5)
    with store.jobs.withheld(lease.job_id) as withheld:
        assert withheld.files_removed_at is not None


def test_files_whose_removal_fails_are_not_said_to_be_gone(store: Store) -> None:
    job = ended(store, "failed")
    with pytest.raises(OSError, match="busy"), store.jobs.withheld(job.id):
        raise OSError("busy")
    assert store.jobs.get(job.id) == job
