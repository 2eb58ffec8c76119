"""Jobs from the workers' side: claims, leases, fences, and what may come of a job."""

from collections.abc import Callable

import pytest

from sds_clip.app.errors import AliasMoved, LeaseLost, UnusableRecord
from sds_clip.app.store import Store
from sds_clip.app.store.records import JobError, Lease, Level, Move, NewVersion
from sds_clip.app.store.states import JobKind, JobStatus
from tests.app.store.conftest import FakeClock, begun, claimed, submitted

BOOM = JobError("boom", "Boom.", "lr", retryable=True)


def version(id: str = "v1", **options: object) -> NewVersion:
    return NewVersion(**{"id": id, "folder": id, "description": {"a": 1}, "size_bytes": 5, **options})  # type: ignore[arg-type]


def every_effect(store: Store, lease: Lease) -> list[Callable[[], object]]:
    """All that a worker can do to a job by its lease, but for `renew`, which answers None."""
    work = store.leases
    return [
        lambda: work.progress(lease, stage="train", step=99),
        lambda: work.event(lease, "a zombie speaks"),
        lambda: work.points(lease, {99: {"loss": 9.0}}),
        lambda: work.release(lease),
        lambda: work.suspend(lease, BOOM),
        lambda: work.fail(lease, BOOM),
        lambda: work.fail(lease, BOOM, retry_in_s=1),
        lambda: work.succeed(lease, version=version("zombie")),
    ]


def test_oldest_job_of_the_kind_is_claimed(store: Store) -> None:
    other = submitted(store, kind=JobKind.EVALUATE)
    first, second = submitted(store), submitted(store)
    job = store.leases.claim(JobKind.FINETUNE, "slot-1", 60)
    assert job is not None
    assert (job.id, job.status, job.fence, job.attempt, job.lease_owner) == (
        first.id,
        JobStatus.RUNNING,
        1,
        1,
        "slot-1",
    )
    assert job.lease_until == pytest.approx(job.started_at + 60 if job.started_at else 0)
    assert claimed(store).job_id == second.id
    assert store.leases.claim(JobKind.FINETUNE, "slot-3", 60) is None
    assert claimed(store, kind=JobKind.EVALUATE).job_id == other.id


def test_job_is_taken_over_only_after_its_lease_has_ended(store: Store, clock: FakeClock) -> None:
    submitted(store)
    first = claimed(store, ttl_s=60)
    clock.advance(59)
    assert store.leases.claim(JobKind.FINETUNE, "other", 60) is None
    assert store.leases.renew(first, 60) is JobStatus.RUNNING
    clock.advance(59)
    assert store.leases.claim(JobKind.FINETUNE, "other", 60) is None
    clock.advance(2)
    second = claimed(store)
    assert second == Lease(first.job_id, first.fence + 1)
    found = store.jobs.get(first.job_id)
    assert (found.attempt, found.interruptions) == (1, 1)


def test_zombie_whose_job_was_taken_over_changes_nothing(store: Store, clock: FakeClock) -> None:
    submitted(store)
    zombie = claimed(store)
    clock.advance(61)
    claimed(store)
    before = store.jobs.get(zombie.job_id)
    assert store.leases.renew(zombie, 60) is None
    for effect in every_effect(store, zombie):
        with pytest.raises(LeaseLost, match=zombie.job_id):
            effect()
    assert store.jobs.get(zombie.job_id) == before
    assert store.events.metrics(zombie.job_id) == ()
    assert store.versions.list().items == ()


@pytest.mark.parametrize("end", ["release", "fail", "succeed"])
def test_worker_has_no_say_after_it_let_go(store: Store, end: str) -> None:
    lease = begun(store)
    {
        "release": lambda: store.leases.release(lease),
        "fail": lambda: store.leases.fail(lease, BOOM),
        "succeed": lambda: store.leases.succeed(lease),
    }[end]()
    before = store.jobs.get(lease.job_id)
    assert store.leases.renew(lease, 60) is None
    for effect in every_effect(store, lease):
        with pytest.raises(LeaseLost):
            effect()
    assert store.jobs.get(lease.job_id) == before


def test_worker_that_was_only_late_goes_on(store: Store, clock: FakeClock) -> None:
    submitted(store)
    lease = claimed(store, ttl_s=60)
    clock.advance(600)
    store.leases.progress(lease, stage="train", step=5, steps=10)
    assert store.leases.renew(lease, 60) is JobStatus.RUNNING
    assert store.leases.claim(JobKind.FINETUNE, "other", 60) is None


def test_suspended_job_is_paused_with_its_reason_until_it_is_resumed(store: Store) -> None:
    submitted(store, max_attempts=1)
    job = store.leases.suspend(claimed(store), BOOM)
    assert (job.status, job.pause_reason, job.error, job.attempt) == (JobStatus.PAUSED, BOOM, None, 0)
    assert (job.lease_owner, job.lease_until) == (None, None)
    assert store.leases.claim(JobKind.FINETUNE, "slot", 60) is None
    last = store.events.transitions(job.id)[-1]
    assert (last.level, last.message) == (Level.WARNING, "Boom.")
    assert last.data is not None
    assert (last.data["to"], last.data["error"]["code"]) == ("paused", "boom")
    job = store.jobs.request_resume(job.id)
    assert (job.status, job.pause_reason) == (JobStatus.QUEUED, None)
    assert claimed(store).fence == 2


def test_suspended_job_that_was_being_cancelled_is_cancelled(store: Store) -> None:
    lease = begun(store)
    store.jobs.request_cancel(lease.job_id)
    job = store.leases.suspend(lease, BOOM)
    assert (job.status, job.pause_reason) == (JobStatus.CANCELLED, None)


def test_reason_is_gone_from_a_suspended_job_that_is_cancelled(store: Store) -> None:
    submitted(store)
    job = store.leases.suspend(claimed(store), BOOM)
    assert store.jobs.request_cancel(job.id).pause_reason is None


def test_job_whose_worker_shuts_down_is_interrupted_and_its_attempt_not_counted(store: Store) -> None:
    submitted(store, max_attempts=1)
    for fence in range(1, 6):
        lease = claimed(store)
        assert lease.fence == fence
        job = store.leases.release(lease)
        assert (job.status, job.attempt, job.interruptions) == (JobStatus.QUEUED, 0, fence)
        assert (job.lease_owner, job.lease_until) == (None, None)


def test_pausing_is_no_interruption(store: Store) -> None:
    lease = begun(store)
    store.jobs.request_pause(lease.job_id)
    paused = store.leases.release(lease)
    assert (paused.status, paused.attempt, paused.interruptions) == (JobStatus.PAUSED, 0, 0)


def test_machines_that_die_fail_no_job_before_its_interruptions_are_used_up(
    store: Store, clock: FakeClock
) -> None:
    job = submitted(store, max_attempts=1, max_interruptions=50)
    other = submitted(store)
    for interruptions in range(51):
        assert claimed(store).job_id == job.id
        assert store.jobs.get(job.id).interruptions == interruptions
        clock.advance(301)
    assert claimed(store).job_id == other.id
    failed = store.jobs.get(job.id)
    assert (failed.status, failed.attempt, failed.interruptions) == (JobStatus.FAILED, 1, 51)
    assert failed.error is not None
    assert (failed.error.code, failed.error.retryable) == ("interrupted_too_often", True)
    assert failed.finished_at is not None


def test_shutdowns_beyond_the_interruptions_fail_the_job_at_once(store: Store) -> None:
    submitted(store, max_interruptions=1)
    assert store.leases.release(claimed(store)).status is JobStatus.QUEUED
    failed = store.leases.release(claimed(store))
    assert failed.error is not None
    assert (failed.status, failed.error.code) == (JobStatus.FAILED, "interrupted_too_often")


def test_job_that_takes_its_machine_down_each_time_backs_off(store: Store, clock: FakeClock) -> None:
    """Between two claims lie the lease, and 5 s doubled for each interruption, up to five minutes."""
    submitted(store)
    waits = []
    claimed(store)
    for _ in range(9):
        since = clock.now
        clock.advance(60.5)
        while (job := store.leases.claim(JobKind.FINETUNE, "slot", 60)) is None:
            clock.advance(1)
        waits.append(clock.now - since)
    assert job.interruptions == 9
    assert waits[:4] == pytest.approx([60.5] * 4, abs=0.5)
    assert waits[4:] == pytest.approx([60.5, 80, 160, 300, 300], abs=1.5)


def test_job_that_came_on_before_its_machine_died_is_due_with_the_end_of_its_lease(
    store: Store, clock: FakeClock
) -> None:
    submitted(store)
    for step in range(1, 12):
        lease = claimed(store)
        store.leases.progress(lease, stage="train", step=step)
        clock.advance(61)
    assert store.jobs.get(lease.job_id).interruptions == 10


def test_running_time_is_counted_over_attempts_and_ends_the_job_at_a_checkpoint(
    store: Store, clock: FakeClock
) -> None:
    lease = begun(store, max_run_time_s=100.0)
    clock.advance(30)
    assert store.leases.release(lease).run_time_s == pytest.approx(30, abs=0.1)
    clock.advance(1000)  # in the queue
    lease = claimed(store)
    clock.advance(40)
    assert store.leases.fail(lease, BOOM, retry_in_s=1).run_time_s == pytest.approx(70, abs=0.1)
    clock.advance(1000)
    lease = claimed(store)
    clock.advance(31)
    failed = store.leases.release(lease)
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.retryable) == ("run_time_exceeded", True)
    assert failed.interruptions == 1, "the first release alone"


def test_running_time_ends_with_the_lease_of_a_dead_worker(store: Store, clock: FakeClock) -> None:
    job = submitted(store, max_run_time_s=100.0)
    claimed(store, ttl_s=60)
    clock.advance(10_000)
    claimed(store, ttl_s=60)
    assert store.jobs.get(job.id).run_time_s == pytest.approx(60, abs=0.1)
    clock.advance(10_000)
    assert store.leases.claim(JobKind.FINETUNE, "slot", 60) is None
    failed = store.jobs.get(job.id)
    assert failed.error is not None
    assert failed.error.code == "run_time_exceeded"


def test_failed_job_keeps_its_error(store: Store) -> None:
    submitted(store)
    job = store.leases.fail(claimed(store), BOOM)
    assert (job.status, job.error) == (JobStatus.FAILED, BOOM)
    last = store.events.events(job.id)[-1]
    assert (last.level, last.message, last.data) == (
        Level.ERROR,
        "Boom.",
        {
            "from": "running",
            "to": "failed",
            "error": {"code": "boom", "message": "Boom.", "param": "lr", "retryable": True},
        },
    )


def test_retried_job_backs_off_and_fails_with_its_last_attempt(store: Store, clock: FakeClock) -> None:
    submitted(store, max_attempts=2)
    job = store.leases.fail(claimed(store), BOOM, retry_in_s=30)
    assert (job.status, job.attempt, job.error) == (JobStatus.QUEUED, 1, None)
    assert store.leases.claim(JobKind.FINETUNE, "slot", 60) is None
    clock.advance(31)
    job = store.leases.fail(claimed(store), BOOM, retry_in_s=30)
    assert (job.status, job.error) == (JobStatus.FAILED, BOOM)


@pytest.mark.parametrize("kind", JobKind)
def test_any_step_past_the_furthest_renews_the_attempts(
    store: Store, clock: FakeClock, kind: JobKind
) -> None:
    submitted(store, kind=kind)
    for step in range(1, 11):
        lease = claimed(store, kind=kind)
        store.leases.progress(lease, stage="at work", step=step)
        job = store.leases.fail(lease, BOOM, retry_in_s=1)
        assert (job.status, job.attempt, job.furthest_step) == (JobStatus.QUEUED, 1, step)
        clock.advance(2)


def test_attempts_that_come_no_further_are_counted(store: Store, clock: FakeClock) -> None:
    submitted(store)
    for attempt in (1, 2, 3):
        lease = claimed(store)
        store.leases.progress(lease, stage="train", step=7, done=7)
        job = store.leases.fail(lease, BOOM, retry_in_s=1)
        assert (job.attempt, job.furthest_step) == (attempt, 7)
        clock.advance(2)
    assert (job.status, job.error) == (JobStatus.FAILED, BOOM)


def test_steps_of_all_stages_count_though_a_stage_begins_at_0(store: Store) -> None:
    lease = begun(store)
    store.leases.progress(lease, stage="reading", step=100, done=100)
    store.leases.progress(lease, stage="scoring", step=3, done=103)
    job = store.jobs.get(lease.job_id)
    assert (job.stage, job.step, job.furthest_step) == ("scoring", 3, 103)


def test_steps_that_a_process_did_not_live_to_tell_renew_its_attempts(store: Store, clock: FakeClock) -> None:
    submitted(store, max_attempts=1)
    assert store.leases.fail(claimed(store), BOOM, retry_in_s=1, done=5).status is JobStatus.FAILED
    submitted(store, max_attempts=2)
    for done in (5, 6, 7):
        job = store.leases.fail(claimed(store), BOOM, retry_in_s=1, done=done)
        assert (job.status, job.attempt, job.furthest_step) == (JobStatus.QUEUED, 1, done)
        clock.advance(2)


def test_attempt_that_was_overtaken_gets_nothing_for_having_come_on(store: Store, clock: FakeClock) -> None:
    submitted(store)
    lost = claimed(store)
    clock.advance(61)
    job = store.jobs.get(claimed(store).job_id)
    with pytest.raises(LeaseLost):
        store.leases.progress(lost, stage="train", step=5)
    with pytest.raises(LeaseLost):
        store.leases.fail(lost, BOOM, retry_in_s=1, done=5)
    assert store.jobs.get(job.id) == job


def test_failure_of_a_job_that_was_asked_to_stop(store: Store) -> None:
    pausing, cancelling = submitted(store), submitted(store)
    leases = [claimed(store), claimed(store)]
    store.jobs.request_pause(pausing.id)
    store.jobs.request_cancel(cancelling.id)
    assert store.leases.fail(leases[0], BOOM, retry_in_s=5).status is JobStatus.PAUSED
    job = store.leases.fail(leases[1], BOOM, retry_in_s=5)
    assert (job.status, job.error) == (JobStatus.CANCELLED, None)


def test_stopping_job_whose_worker_is_gone_is_settled_by_the_reaper(store: Store, clock: FakeClock) -> None:
    pausing, cancelling, running = submitted(store), submitted(store), submitted(store)
    leases = [claimed(store), claimed(store), claimed(store)]
    store.jobs.request_pause(pausing.id)
    store.jobs.request_cancel(cancelling.id)
    assert store.leases.settle_abandoned() == ()
    clock.advance(61)
    settled = {job.id: job.status for job in store.leases.settle_abandoned()}
    assert settled == {pausing.id: JobStatus.PAUSED, cancelling.id: JobStatus.CANCELLED}
    assert store.jobs.get(running.id).status is JobStatus.RUNNING
    for lease in leases[:2]:
        with pytest.raises(LeaseLost):
            store.leases.succeed(lease)


def test_stopping_job_is_not_claimed_by_another_worker(store: Store, clock: FakeClock) -> None:
    job = submitted(store)
    claimed(store)
    store.jobs.request_pause(job.id)
    clock.advance(61)
    assert store.leases.claim(JobKind.FINETUNE, "other", 60) is None


def test_success_brings_version_result_and_promotion_at_once(store: Store) -> None:
    job = submitted(store)
    move = Move("default", "job", "better", expected_generation=0, metrics={"group": 0.5})
    done = store.leases.succeed(claimed(store), version=version(), result={"n": 1}, promotion=move)
    assert (done.status, done.result_version, done.result) == (JobStatus.SUCCEEDED, "v1", {"n": 1})
    made = store.versions.get("v1")
    assert (made.job_id, made.folder, made.description, made.size_bytes) == (job.id, "v1", {"a": 1}, 5)
    assert (store.aliases.get("default").version, store.aliases.get("default").generation) == ("v1", 1)
    [line] = store.aliases.promotions()
    assert (line.job_id, line.from_version, line.to_version) == (job.id, None, "v1")


def test_success_whose_promotion_was_decided_on_another_alias_changes_nothing(store: Store) -> None:
    lease = begun(store)
    store.versions.register(version("base"))
    store.aliases.promote(Move("default", "me", "first", None), "base")
    with pytest.raises(AliasMoved):
        store.leases.succeed(lease, version=version(), promotion=Move("default", "job", "better", 0))
    assert store.jobs.get(lease.job_id).status is JobStatus.RUNNING
    assert [each.id for each in store.versions.list().items] == ["base"]
    done = store.leases.succeed(lease, version=version(), promotion=Move("default", "job", "better", 1))
    assert done.status is JobStatus.SUCCEEDED
    assert store.aliases.get("default").previous == "base"


def test_success_reported_twice_is_the_same_success(store: Store) -> None:
    lease = begun(store)
    done = store.leases.succeed(lease, version=version())
    assert store.leases.succeed(lease, version=version()) == done
    with pytest.raises(LeaseLost):
        store.leases.succeed(lease, version=version("v2"))
    assert len(store.versions.list().items) == 1


def test_success_after_cancelling_was_asked_for_makes_no_version(store: Store) -> None:
    lease = begun(store)
    store.jobs.request_cancel(lease.job_id)
    move = Move("default", "job", "better", None)
    done = store.leases.succeed(lease, version=version(), promotion=move)
    assert (done.status, done.result_version) == (JobStatus.CANCELLED, None)
    assert store.versions.list().items == ()
    assert store.aliases.all() == ()


def test_success_while_pausing_was_asked_for_is_a_success(store: Store) -> None:
    lease = begun(store)
    store.jobs.request_pause(lease.job_id)
    assert store.leases.succeed(lease, version=version()).status is JobStatus.SUCCEEDED


def test_two_jobs_with_the_same_weights_share_the_version(store: Store) -> None:
    first, second = submitted(store), submitted(store)
    store.leases.succeed(claimed(store), version=version())
    done = store.leases.succeed(claimed(store), version=version(folder="elsewhere"))
    assert (done.id, done.result_version) == (second.id, "v1")
    [only] = store.versions.list().items
    assert (only.job_id, only.folder) == (first.id, "v1")


def test_deleted_version_that_is_made_again_lives_in_its_new_folder(store: Store) -> None:
    submitted(store), submitted(store)
    store.leases.succeed(claimed(store), version=version())
    store.versions.delete("v1")
    store.leases.succeed(claimed(store), version=version(folder="new"))
    [only] = store.versions.list().items
    assert only.folder == "new"


def test_success_over_a_base_that_is_gone_changes_nothing(store: Store) -> None:
    lease = begun(store)
    with pytest.raises(UnusableRecord, match="gone"):
        store.leases.succeed(lease, version=version(base_version="gone"))
    assert store.jobs.get(lease.job_id).status is JobStatus.RUNNING


def test_progress_is_seen_and_its_estimate_ends_with_the_attempt(store: Store) -> None:
    lease = begun(store)
    store.leases.progress(lease, stage="train", step=7, steps=10, estimated_finish=123.5)
    seen = store.jobs.get(lease.job_id)
    assert (seen.stage, seen.step, seen.steps, seen.estimated_finish) == ("train", 7, 10, 123.5)
    assert store.leases.release(lease).estimated_finish is None
