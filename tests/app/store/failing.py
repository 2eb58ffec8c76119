"""Every way for a job to fail, on a store whose clock the test has."""

from collections.abc import Callable, Mapping

from sds_clip.app.store import Store
from sds_clip.app.store.records import JobError, NewJob
from sds_clip.app.store.states import JobKind
from tests.app.store.conftest import FakeClock, claimed, submitted
from tests.checks import claimed_check


def its_leases_lapse(store: Store, clock: FakeClock) -> None:
    submitted(store, max_interruptions=0)
    claimed(store)
    clock.advance(61)
    assert store.leases.claim(JobKind.FINETUNE, "another", 60) is None


def its_workers_shut_down(store: Store, clock: FakeClock) -> None:
    submitted(store, max_interruptions=0)
    store.leases.release(claimed(store))


def its_time_is_up_when_its_worker_is_gone(store: Store, clock: FakeClock) -> None:
    submitted(store, max_run_time_s=30.0)
    claimed(store)
    clock.advance(61)
    assert store.leases.claim(JobKind.FINETUNE, "another", 60) is None


def its_time_is_up_and_its_worker_stops_it(store: Store, clock: FakeClock) -> None:
    submitted(store, max_run_time_s=30.0)
    lease = claimed(store)
    clock.advance(31)
    store.leases.release(lease)


def its_attempts_are_used_up(store: Store, clock: FakeClock) -> None:
    submitted(store, max_attempts=1)
    store.leases.fail(claimed(store), JobError("process_died", "", retryable=True), retry_in_s=1)


def its_trainer_fails(store: Store, clock: FakeClock) -> None:
    submitted(store)
    store.leases.fail(claimed(store), JobError("training_failed", ""))


def its_data_are_missing(store: Store, clock: FakeClock) -> None:
    submitted(store)
    store.leases.fail(claimed(store), JobError("dataset_missing", ""))


def its_data_are_rejected(store: Store, clock: FakeClock) -> None:
    dataset = store.datasets.add(format="pairs", source={})
    store.jobs.submit(NewJob(JobKind.FINETUNE, {}, datasets=(dataset.id,)))
    store.datasets.reject(claimed_check(store), problems=[])


WAYS: Mapping[Callable[[Store, FakeClock], None], str] = {
    its_leases_lapse: "interrupted_too_often",
    its_workers_shut_down: "interrupted_too_often",
    its_time_is_up_when_its_worker_is_gone: "run_time_exceeded",
    its_time_is_up_and_its_worker_stops_it: "run_time_exceeded",
    its_attempts_are_used_up: "process_died",
    its_trainer_fails: "training_failed",
    its_data_are_missing: "dataset_missing",
    its_data_are_rejected: "dataset_rejected",
}
"""The ways, and the codes of their errors."""
