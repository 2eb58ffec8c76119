"""Each way for a job to fail is counted."""

from collections.abc import Callable

import pytest

from sds_clip.app.store import Store
from sds_clip.app.store.records import JobError
from sds_clip.app.store.states import TRANSITIONS, Action, JobKind, JobStatus
from tests.app.store.conftest import FakeClock, claimed, submitted
from tests.app.store.failing import WAYS

DIED = JobError("process_died", "It died.", retryable=True)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_job_that_fails_is_counted_once_with_its_code(
    store: Store, clock: FakeClock, way: Callable[[Store, FakeClock], None]
) -> None:
    way(store, clock)
    (job,) = store.jobs.list(status=JobStatus.FAILED).items
    assert job.error is not None
    seen = store.overviews.read()
    assert seen.failures == {(JobKind.FINETUNE, "failed", WAYS[way]): 1}
    assert job.error.code == WAYS[way]
    assert (seen.failed_jobs(JobKind.FINETUNE), seen.failed_jobs(JobKind.EVALUATE)) == (1, 0)


def test_the_ways_are_all_that_lead_to_a_failed_job() -> None:
    ways = {action for (_, action), status in TRANSITIONS.items() if status is JobStatus.FAILED}
    assert ways == {Action.DATA_REJECTED, Action.EXHAUST, Action.FAIL}


def test_error_after_which_the_job_goes_on_is_counted_apart(store: Store, clock: FakeClock) -> None:
    submitted(store, max_attempts=2)
    store.leases.fail(claimed(store), DIED, retry_in_s=0)
    store.leases.suspend(claimed(store), JobError("storage_full", "It is full."))
    seen = store.overviews.read()
    assert seen.failures == {
        (JobKind.FINETUNE, "retried", "process_died"): 1,
        (JobKind.FINETUNE, "paused", "storage_full"): 1,
    }
    assert seen.failed_jobs(JobKind.FINETUNE) == 0


def test_failures_add_up_by_kind(store: Store, clock: FakeClock) -> None:
    for kind in (JobKind.FINETUNE, JobKind.FINETUNE, JobKind.EVALUATE):
        submitted(store, kind=kind)
        store.leases.fail(claimed(store, kind=kind), DIED)
    failures = store.overviews.read().failures
    assert {kind: count for (kind, _, _), count in failures.items()} == {
        JobKind.FINETUNE: 2,
        JobKind.EVALUATE: 1,
    }


def test_success_release_and_cancellation_are_no_failures(store: Store, clock: FakeClock) -> None:
    for _ in range(3):
        submitted(store)
    store.leases.succeed(claimed(store))
    store.leases.release(claimed(store))
    lease = claimed(store)
    store.jobs.request_cancel(lease.job_id)
    store.leases.release(lease)
    assert store.overviews.read().failures == {}
