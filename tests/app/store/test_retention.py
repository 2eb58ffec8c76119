"""What retention decides on, the removal of jobs, and one sweep at a time."""

from collections.abc import Callable
from itertools import pairwise
from types import MappingProxyType

import pytest
from sqlalchemy import Column, Connection, func, select

from sds_clip.app.errors import JobStateConflict, UnknownRecord
from sds_clip.app.store import Store, retention
from sds_clip.app.store.records import Job, JobError, Json, Lease, NewVersion
from sds_clip.app.store.retention import Held, Kind
from sds_clip.app.store.states import JobKind
from sds_clip.app.store.tables import events, job_datasets, job_versions, metrics
from sds_clip.app.store.verdicts import check_of
from tests.app.store.conftest import FakeClock, begun, claimed, register, submitted, to
from tests.checks import claimed_check


def ended(store: Store, **options: object) -> Job:
    """A job that has failed, and whose files were removed."""
    job = submitted(store, **options)
    store.leases.fail(claimed(store), JobError("x", "x"))
    with store.jobs.withheld(job.id):
        pass
    return store.jobs.get(job.id)


def made(store: Store, version: str) -> Job:
    """A job that has made a version, and whose files were removed."""
    submitted(store)
    row = NewVersion(version, f"versions/{version}", {}, 1)
    job = store.leases.succeed(claimed(store), version=row)
    with store.jobs.withheld(job.id):
        pass
    return job


def added(store: Store, source: Json = MappingProxyType({"path": "/a"})) -> str:
    """A data set that is ready."""
    dataset = store.datasets.add(format="pairs", source=source)
    store.datasets.accept(claimed_check(store), content_hash="c", counts={})
    return dataset.id


def held(store: Store, **limits: float) -> list[Held]:
    """What there is, with the jobs of the kinds that are named."""
    return list(store.retention.holdings({Kind[kind]: limit for kind, limit in limits.items()}).things)


def used_at(store: Store, id: str) -> float:
    """When a version or data set was last used."""
    return next(each.used_at for each in held(store) if each.id == id)


def test_jobs_that_ended_long_enough_ago_are_listed_by_kind(store: Store, clock: FakeClock) -> None:
    old = ended(store)
    clock.advance(100)
    ended(store)
    submitted(store)
    submitted(store, kind=JobKind.EVALUATE)
    store.leases.succeed(claimed(store, kind=JobKind.EVALUATE))

    assert held(store) == []
    assert [(job.id, job.kind) for job in held(store, JOB=50)] == [(old.id, Kind.JOB)]
    assert held(store, EVALUATION=50) == []
    everything = held(store, JOB=0, EVALUATION=0)
    assert [job.kind for job in everything] == [Kind.JOB, Kind.JOB, Kind.EVALUATION]


def test_deleted_records_and_unchecked_data_are_not_listed(store: Store) -> None:
    register(store, "v1", "v2")
    first, second = added(store), added(store)
    store.versions.delete("v1")
    store.datasets.delete(first)
    store.datasets.add(format="pairs", source={})

    assert [(each.id, each.folder) for each in held(store)] == [("v2", None), (second, None)]


def test_only_uploads_have_files_here(store: Store) -> None:
    uploaded = added(store, {})
    added(store)
    assert [each.folder for each in held(store)] == [f"datasets/sets/{uploaded}", None]


def test_open_jobs_are_named_and_ended_ones_date_the_last_use(store: Store, clock: FakeClock) -> None:
    register(store, "v1")
    dataset = added(store)
    first = submitted(store, datasets=(dataset,), versions=("v1",))
    assert [each.open_job for each in held(store)] == [first.id] * 2
    clock.advance(100)
    end = store.leases.fail(claimed(store), JobError("x", "x")).finished_at

    assert [(each.open_job, each.used_at) for each in held(store)] == [(None, end)] * 2


def test_last_use_outlives_the_job(store: Store, clock: FakeClock) -> None:
    register(store, "v1")
    dataset = added(store)
    clock.advance(100)
    first = ended(store, datasets=(dataset,), versions=("v1",))
    clock.advance(100)
    second = ended(store, datasets=(dataset,), versions=("v1",))
    for job in (second, first):  # an older use does not replace a newer one
        store.retention.remove_job(job.id, ended_for_s=0)

    assert used_at(store, "v1") == used_at(store, dataset) == second.finished_at


def test_a_version_was_used_until_an_alias_left_it_and_when_it_was_made_again(
    store: Store, clock: FakeClock
) -> None:
    register(store, "v1", "v2")
    store.aliases.promote(to(), "v1")
    clock.advance(100)
    store.aliases.promote(to(), "v2")
    assert clock.now - used_at(store, "v1") < 1
    clock.advance(100)
    store.aliases.lock("default", "me", "a reason")  # which is no move
    assert clock.now - used_at(store, "v2") > 150
    made(store, "v2")
    assert clock.now - used_at(store, "v2") < 1
    store.aliases.promote(to("live"), "v2")
    clock.advance(100)
    store.aliases.remove(to("live"))
    assert clock.now - used_at(store, "v2") < 1


def test_aliases_are_listed_with_what_rollbacks_lead_to(store: Store) -> None:
    register(store, "v1", "v2", "v3")
    for version in ("v1", "v2", "v3"):
        store.aliases.promote(to(), version)
    assert store.retention.holdings({}).aliases == {"default": ["v3", "v2", "v1"]}
    store.aliases.roll_back(to())
    assert store.retention.holdings({}).aliases == {"default": ["v2", "v1"]}
    store.aliases.promote(to("live"), "v3")
    store.aliases.remove(to("live"))
    assert store.retention.holdings({}).aliases == {"default": ["v2", "v1"]}


def test_job_goes_with_its_events_its_curve_and_its_links(store: Store) -> None:
    register(store, "v1")
    dataset = added(store)
    other = ended(store, datasets=(dataset,))
    submitted(store, datasets=(dataset,), versions=("v1",), owner="me", idempotency_key="once")
    lease = claimed(store)
    store.leases.event(lease, "a message")
    store.leases.points(lease, {1: {"loss": 1.0}, 2: {"loss": 0.5}})
    store.leases.fail(lease, JobError("x", "x"))
    with store.jobs.withheld(lease.job_id):
        pass

    store.retention.remove_job(lease.job_id, ended_for_s=0)

    with pytest.raises(UnknownRecord):
        store.jobs.get(lease.job_id)
    with store.database.reading() as connection:
        for table in (events, metrics, job_datasets, job_versions):
            owners = set(connection.execute(select(table.c.job_id)).scalars())
            assert owners <= {other.id, check_of(dataset)}
    with pytest.raises(UnknownRecord):
        store.retention.remove_job(lease.job_id, ended_for_s=0)
    assert submitted(store, owner="me", idempotency_key="once").id != lease.job_id


def test_long_streams_of_events_go_in_several_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 3)
    lease = begun(store)
    store.leases.points(lease, {step: {"loss": 1.0} for step in range(7)})
    store.leases.fail(lease, JobError("x", "x"))
    with store.jobs.withheld(lease.job_id):
        pass
    left = []
    thinned = retention._thinned

    def watched(connection: Connection, job_id: str, order: Column[int]) -> bool:
        left.append(rows(store))
        return thinned(connection, job_id, order)

    monkeypatch.setattr(retention, "_thinned", watched)

    store.retention.remove_job(lease.job_id, ended_for_s=0)

    assert rows(store) == 0
    assert left[0] == 17
    assert max(before - after for before, after in pairwise(left)) <= 2 * 3  # of each table


def rows(store: Store) -> int:
    with store.database.reading() as connection:
        return sum(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (events, metrics)
        )


def test_job_that_is_open_or_ended_lately_or_has_files_stays(store: Store, clock: FakeClock) -> None:
    job = submitted(store)
    with pytest.raises(JobStateConflict, match="not ended"):
        store.retention.remove_job(job.id, ended_for_s=0)
    store.leases.fail(claimed(store), JobError("x", "x"))
    with pytest.raises(JobStateConflict, match="files"):
        store.retention.remove_job(job.id, ended_for_s=0)
    with store.jobs.withheld(job.id):
        pass
    with pytest.raises(JobStateConflict, match="too recently"):
        store.retention.remove_job(job.id, ended_for_s=60)
    clock.advance(60)
    store.retention.remove_job(job.id, ended_for_s=60)


def test_retried_job_stays(store: Store) -> None:
    job = ended(store)
    store.jobs.request_retry(job.id)
    with pytest.raises(JobStateConflict):
        store.retention.remove_job(job.id, ended_for_s=0)
    assert store.leases.claim(JobKind.FINETUNE, "slot", 60) is not None


@pytest.mark.parametrize("which", [0, 1])
def test_jobs_that_made_a_version_stay_until_it_is_deleted(store: Store, which: int) -> None:
    """The one that made it first, and one that made the same weights."""
    job = (made(store, "v1"), made(store, "v1"))[which]
    with pytest.raises(JobStateConflict, match="version"):
        store.retention.remove_job(job.id, ended_for_s=0)
    store.versions.delete("v1")
    store.retention.remove_job(job.id, ended_for_s=0)
    assert store.versions.get("v1").job_id != job.id


def test_a_version_that_is_made_again_takes_its_new_job_if_its_first_one_was_removed(store: Store) -> None:
    first = made(store, "v1")
    store.versions.delete("v1")
    store.retention.remove_job(first.id, ended_for_s=0)
    second = made(store, "v1")
    assert store.versions.get("v1").job_id == second.id
    store.versions.delete("v1")
    made(store, "v1")
    assert store.versions.get("v1").job_id == second.id


def test_one_process_sweeps_until_it_is_done_or_gone(
    store: Store, make_store: Callable[..., Store], url: str, clock: FakeClock
) -> None:
    another = make_store(url, clock=clock)
    assert store.retention.claim_sweep("a", 60)
    assert not another.retention.claim_sweep("b", 60)
    clock.advance(50)
    assert store.retention.claim_sweep("a", 60)
    clock.advance(50)
    another.retention.release_sweep("b")
    assert not another.retention.claim_sweep("b", 60)
    store.retention.release_sweep("a")
    assert another.retention.claim_sweep("b", 60)
    clock.advance(61)
    assert store.retention.claim_sweep("a", 60)
    assert not another.retention.claim_sweep("b", 60)


def test_jobs_of_folders_are_found_with_what_the_cleanup_needs(store: Store, clock: FakeClock) -> None:
    submitted(store)
    lease = claimed(store)
    store.leases.succeed(lease, result={"files": {"report": "report.html"}, "metrics": {}})
    submitted(store)
    failed = claimed(store)
    store.leases.fail(failed, JobError("x", "x"))
    waiting = submitted(store)
    found = {
        job.id: job
        for job in store.retention.found([lease.job_id, failed.job_id, waiting.id, "job_of_another"])
    }
    assert found.keys() == {lease.job_id, failed.job_id, waiting.id}
    for id, job in found.items():
        whole = store.jobs.get(id)
        assert (job.lease, job.status) == (Lease.of(whole), whole.status)
        assert (job.finished_at, job.files_removed_at) == (whole.finished_at, whole.files_removed_at)
        assert job.result_files == (whole.result or {}).get("files")
    assert store.retention.found([]) == ()
    assert len(store.retention.found([*found, *(f"job_{number}" for number in range(40_000))])) == 3
