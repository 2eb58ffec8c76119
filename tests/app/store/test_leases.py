"""Jobs from the workers' side: claims, leases, fences, and what may come of a job."""

from collections.abc import Callable

import pytest

from sds_clip.app.errors import LeaseLost, UnusableRecord
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


@pytest.mark.parametrize("end", ["lapse", "release", "fail", "succeed"])
def test_worker_has_no_say_after_it_let_go_or_was_overtaken(store: Store, clock: FakeClock, end: str) -> None:
    lease = begun(store)
    {
        "lapse": lambda: (clock.advance(61), claimed(store)),
        "release": lambda: store.leases.release(lease),
        "fail": lambda: store.leases.fail(lease, BOOM),
        "succeed": lambda: store.leases.succeed(lease),
    }[end]()
    before = store.jobs.get(lease.job_id)
    assert store.leases.renew(lease, 60) is None
    for effect in every_effect(store, lease):
        with pytest.raises(LeaseLost, match=lease.job_id):
            effect()
    assert store.jobs.get(lease.job_id) == before
    assert store.events.metrics(lease.job_id) == ()


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


def test_reason_is_gone_from_a_suspended_job_that_is_cancelled(store: Store) -> None:
    submitted(store)
    job = store.leases.suspend(claimed(store), BOOM)
    assert store.jobs.request_cancel(job.id).pause_reason is None


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


@pytest.mark.parametrize(
    ("ask", "report", "becomes"),
    [
        ("pause", "fail", "paused"),
        ("pause", "succeed", "succeeded"),
        ("cancel", "fail", "cancelled"),
        ("cancel", "suspend", "cancelled"),
        ("cancel", "succeed", "cancelled"),
    ],
)
def test_what_becomes_of_a_job_that_was_asked_to_stop(
    store: Store, ask: str, report: str, becomes: str
) -> None:
    lease = begun(store)
    getattr(store.jobs, f"request_{ask}")(lease.job_id)
    job = {
        "fail": lambda: store.leases.fail(lease, BOOM, retry_in_s=5),
        "suspend": lambda: store.leases.suspend(lease, BOOM),
        "succeed": lambda: store.leases.succeed(lease, version=version()),
    }[report]()
    assert (job.status, job.error, job.pause_reason) == (becomes, None, None)
    assert len(store.versions.list().items) == (becomes == "succeeded")


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


def test_success_reported_twice_is_the_same_success(store: Store) -> None:
    lease = begun(store)
    done = store.leases.succeed(lease, version=version())
    assert store.leases.succeed(lease, version=version()) == done
    with pytest.raises(LeaseLost):
        store.leases.succeed(lease, version=version("v2"))
    assert len(store.versions.list().items) == 1


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
