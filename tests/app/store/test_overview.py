"""What operators watch, counted on both databases."""

from sds_clip.app.store import Store
from sds_clip.app.store.records import DatasetStatus, NewVersion, VersionStatus
from sds_clip.app.store.states import JobKind, JobStatus
from tests.app.store.conftest import FakeClock, claimed, submitted
from tests.app.store.test_workers import worker
from tests.checks import claimed_check

FINETUNE, EVALUATE, CHECK = JobKind.FINETUNE, JobKind.EVALUATE, JobKind.CHECK


def test_empty_database_has_every_count_at_0(store: Store) -> None:
    seen = store.overviews.read()
    assert set(seen.jobs) == {(kind, status) for kind in JobKind for status in JobStatus}
    assert seen.queue_age_s == {FINETUNE: 0, EVALUATE: 0, CHECK: 0}
    assert seen.lease_left_s == {}
    for counts in (seen.jobs, seen.workers, seen.busy, seen.datasets, seen.dataset_bytes, seen.versions):
        assert set(counts.values()) == {0}


def test_jobs_are_counted_with_the_oldest_wait_and_the_shortest_lease(store: Store, clock: FakeClock) -> None:
    submitted(store)
    clock.advance(30)
    submitted(store)
    submitted(store, kind=EVALUATE)
    claimed(store, ttl_s=20)  # the oldest
    clock.advance(15)
    claimed(store, kind=EVALUATE, ttl_s=60)
    clock.advance(10)
    seen = store.overviews.read()
    counted = {name: count for name, count in seen.jobs.items() if count}
    assert counted == {
        (FINETUNE, JobStatus.RUNNING): 1,
        (FINETUNE, JobStatus.QUEUED): 1,
        (EVALUATE, JobStatus.RUNNING): 1,
    }
    assert {kind: round(age) for kind, age in seen.queue_age_s.items()} == {
        FINETUNE: 25,
        EVALUATE: 0,
        CHECK: 0,
    }
    assert {kind: round(left) for kind, left in seen.lease_left_s.items()} == {FINETUNE: -5, EVALUATE: 50}


def test_workers_are_counted_by_queue_and_life_and_what_they_hold(store: Store, clock: FakeClock) -> None:
    store.workers.beat(worker("dead"))
    clock.advance(60)
    for name in ("idle", "busy"):
        store.workers.beat(worker(name))
    submitted(store)
    claimed(store, owner="busy")
    store.datasets.add(format="pairs", source={})
    claimed_check(store, owner="idle")
    seen = store.overviews.read()
    assert seen.workers == {
        (FINETUNE, True): 2,
        (FINETUNE, False): 1,
        (EVALUATE, True): 0,
        (EVALUATE, False): 0,
        (CHECK, True): 2,
        (CHECK, False): 1,
    }
    assert seen.busy == {FINETUNE: 1, EVALUATE: 0, CHECK: 1}


def test_sizes_are_those_of_uploads_and_versions(store: Store) -> None:
    for size_bytes in (3 * 2**30, 5, 0):
        store.datasets.add(format="pairs", source={}, size_bytes=size_bytes)
    for name in ("v1", "v2"):
        store.versions.register(NewVersion(id=name, folder=None, description={}, size_bytes=2**31))
    seen = store.overviews.read()
    assert seen.datasets[DatasetStatus.VALIDATING] == 3
    assert seen.dataset_bytes[DatasetStatus.VALIDATING] == 3 * 2**30 + 5
    assert (seen.versions[VersionStatus.READY], seen.version_bytes[VersionStatus.READY]) == (2, 2**32)
