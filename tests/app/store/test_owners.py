"""What one owner sees of the store: its own records, and what the service offers to all."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from sds_clip.app.errors import MissingScope, RecordInUse, ServiceError, UnknownRecord
from sds_clip.app.store import Store, Workspace
from sds_clip.app.store.records import Job, NewVersion, NewWorker
from tests.app.store.conftest import claimed, submitted
from tests.app.store.test_database import upgrade_to
from tests.app.store.test_versions import register, to
from tests.databases import Databases

ON: dict[str, Callable[[Workspace, str], object]] = {
    "jobs get": lambda store, job_id: store.jobs.get(job_id),
    "jobs list after": lambda store, job_id: store.jobs.list(after=job_id),
    "jobs cancel": lambda store, job_id: store.jobs.request_cancel(job_id),
    "jobs pause": lambda store, job_id: store.jobs.request_pause(job_id),
    "jobs resume": lambda store, job_id: store.jobs.request_resume(job_id),
    "jobs retry": lambda store, job_id: store.jobs.request_retry(job_id),
    "jobs withhold": lambda store, job_id: store.jobs.withheld(job_id).__enter__(),
    "jobs events": lambda store, job_id: store.events.events(job_id),
    "jobs later events": lambda store, job_id: store.events.events(job_id, after=1),
    "jobs transitions": lambda store, job_id: store.events.transitions(job_id),
    "jobs metrics": lambda store, job_id: store.events.metrics(job_id),
    "jobs newest metrics": lambda store, job_id: store.events.latest_metrics(job_id),
    "datasets get": lambda store, dataset_id: store.datasets.get(dataset_id),
    "datasets list after": lambda store, dataset_id: store.datasets.list(after=dataset_id),
    "datasets delete": lambda store, dataset_id: store.datasets.delete(dataset_id),
    "versions get": lambda store, version: store.versions.get(version),
    "versions list after": lambda store, version: store.versions.list(after=version),
    "versions delete": lambda store, version: store.versions.delete(version),
}


def made(store: Store, version: str, owner: str, *, base: str | None = None) -> Job:
    """The job of an owner that made a version."""
    submitted(store, owner=owner)
    row = NewVersion(version, version, {}, 1, base_version=base)
    return store.leases.succeed(claimed(store), version=row)


def answer(call: Callable[[Workspace, str], object], store: Workspace, record_id: str) -> object:
    """The error that a caller gets, or what is returned."""
    try:
        return call(store, record_id)
    except ServiceError as error:
        return type(error), error.code, error.message, error.param


@pytest.mark.parametrize("action", ON)
def test_record_of_another_owner_is_unknown(store: Store, action: str) -> None:
    records = {
        "jobs": lambda: submitted(store, owner="alice").id,
        "datasets": lambda: store.datasets.add(name="a", format="pairs", source={}, owner="alice").id,
        "versions": lambda: str(made(store, "v1", "alice").result_version),
    }
    call, record_id = ON[action], records[action.split()[0]]()

    found = answer(call, store.seen_by("bob"), record_id)

    assert isinstance(found, tuple)
    assert found[0] is UnknownRecord
    assert found == answer(call, store.seen_by("bob"), "none")
    assert answer(call, store.seen_by("alice"), record_id) != found
    assert answer(call, store.seen_by(None), record_id) != found


def test_lists_have_an_owners_own_records(store: Store) -> None:
    jobs = {owner: submitted(store, owner=owner).id for owner in ("alice", "bob", "")}
    sets = {
        owner: store.datasets.add(name=owner, format="pairs", source={}, owner=owner).id
        for owner in ("alice", "bob", "")
    }
    alice = store.seen_by("alice")

    assert [job.id for job in alice.jobs.list().items] == [jobs["alice"]]
    assert [each.id for each in alice.datasets.list().items] == [sets["alice"]]
    assert alice.jobs.list(owner="bob").items == alice.datasets.list(owner="bob").items == ()
    assert len(store.jobs.list().items) == len(store.datasets.list().items) == 3
    assert [job.id for job in store.jobs.list(owner="bob").items] == [jobs["bob"]]
    assert [each.id for each in store.datasets.list(owner="bob").items] == [sets["bob"]]


def test_an_owner_sees_its_own_versions_those_of_aliases_and_the_operators(store: Store) -> None:
    register(store, "operator's")
    for version, owner in (
        ("alice's", "alice"),
        ("bob's", "bob"),
        ("aliased", "bob"),
        ("once aliased", "bob"),
    ):
        made(store, version, owner)
    store.aliases.promote(to(), "once aliased")
    store.aliases.promote(to(), "aliased")
    alice = store.seen_by("alice")
    seen = {"operator's", "alice's", "aliased"}

    assert {version.id for version in alice.versions.list().items} == seen
    assert alice.versions.among([*seen, "bob's", "once aliased", "none"]) == seen
    assert [version.id for version in alice.versions.list(owner="alice").items] == ["alice's"]
    assert alice.versions.list(owner="bob").items == ()  # it does not tell whose the aliased one is
    assert [version for version in [*seen, "bob's"] if alice.versions.made(version)] == ["alice's"]


def test_deleted_versions_are_not_ready(store: Store) -> None:
    for version, owner in (("one", "alice"), ("other", "alice"), ("bob's", "bob")):
        made(store, version, owner)
    store.versions.delete("other")
    asked = ["one", "other", "bob's", *map(str, range(2500))]

    assert store.seen_by("alice").versions.ready(asked) == {"one"}
    assert store.versions.ready(asked) == {"one", "bob's"}
    assert store.versions.ready([]) == frozenset()


def test_version_takes_the_owner_of_its_job(store: Store) -> None:
    register(store, "operator's")
    made(store, "alice's", "alice")

    assert store.versions.get("operator's").owner == ""
    assert store.versions.get("alice's").owner == "alice"


def test_weights_that_two_owners_made_are_seen_by_both(store: Store) -> None:
    made(store, "v1", "alice")
    made(store, "v1", "bob")

    assert store.versions.get("v1").owner == "alice"
    assert store.seen_by("alice").versions.made("v1")
    assert store.seen_by("bob").versions.made("v1")
    assert not store.seen_by("carol").versions.among(["v1"])


def test_deleted_version_that_another_owner_makes_again_is_that_ones(store: Store) -> None:
    made(store, "v1", "alice")
    store.versions.delete("v1")
    made(store, "v1", "bob")

    assert store.versions.get("v1").owner == "bob"


def test_alias_that_was_given_away_is_moved_by_its_owner_alone(store: Store) -> None:
    made(store, "v1", "alice")
    made(store, "v2", "alice")
    store.aliases.promote(to("live", give_to="alice"), "v1")
    store.aliases.promote(to("other"), "v1")

    moved = store.seen_by("alice").aliases.promote(to("live", of_owner="alice"), "v2")
    assert (moved.version, moved.owner) == ("v2", "alice")
    assert store.aliases.roll_back(to("live", of_owner="alice")).version == "v1"
    for alias, owner in (("live", "bob"), ("other", "alice"), ("none", "alice")):
        with pytest.raises(MissingScope, match=f"alias {alias}"):
            store.aliases.promote(to(alias, of_owner=owner), "v2")
        with pytest.raises(MissingScope, match=f"alias {alias}"):
            store.aliases.roll_back(to(alias, of_owner=owner))


def test_owner_of_an_alias_cannot_roll_it_back_to_a_version_of_another(store: Store) -> None:
    made(store, "hers", "alice")
    made(store, "his", "bob")
    store.aliases.promote(to("live", give_to="alice"), "his")
    store.aliases.promote(to("live", of_owner="alice"), "hers")

    with pytest.raises(MissingScope, match="a version of another key"):
        store.aliases.roll_back(to("live", of_owner="alice"))
    assert store.aliases.get("live").version == "hers"
    assert store.aliases.roll_back(to("live")).version == "his"


def test_alias_is_given_and_taken_back_where_it_points(store: Store) -> None:
    register(store, "v1")
    before = store.aliases.promote(to(), "v1")

    given = store.aliases.promote(to(give_to="alice", who="root"), "v1")
    assert (given.owner, given.version, given.generation) == ("alice", "v1", before.generation)
    assert store.aliases.promotions("default", limit=1)[0].who == "root"
    assert store.aliases.promote(to(), "v1").owner == "alice"
    assert store.aliases.promote(to(give_to=""), "v1").owner == ""


def test_audit_of_an_alias_is_its_owners(store: Store) -> None:
    register(store, "v1")
    store.aliases.promote(to("hers", give_to="alice"), "v1")
    store.aliases.promote(to("another"), "v1")

    assert [move.alias for move in store.seen_by("alice").aliases.promotions()] == ["hers"]
    assert store.seen_by("bob").aliases.promotions("hers") == ()
    assert len(store.aliases.promotions()) == 2


def test_alias_is_removed_by_its_owner_who_still_sees_its_audit(store: Store) -> None:
    made(store, "hers", "alice")
    made(store, "his", "bob")
    store.aliases.promote(to("live", give_to="alice"), "his")
    assert store.seen_by("alice").versions.among(["his"])

    for alias, owner in (("live", "bob"), ("none", "alice")):
        with pytest.raises(MissingScope, match=f"alias {alias}"):
            store.aliases.remove(to(alias, of_owner=owner))
    for _ in range(2):
        assert store.aliases.remove(to("live", of_owner="alice")).removed_at is not None
    lines = store.seen_by("alice").aliases.promotions()
    assert [line.action for line in lines] == ["remove", "promote"]
    assert not store.seen_by("alice").versions.among(["his"])
    with pytest.raises(MissingScope):
        store.aliases.promote(to("live", of_owner="alice"), "hers")


def test_job_may_move_only_the_alias_that_its_owner_still_has(store: Store) -> None:

    submitted(store, owner="alice", by_admin=False)
    lease = claimed(store)
    register(store, "v0")
    store.aliases.promote(to("live", give_to="alice"), "v0")
    version = NewVersion("v1", "v1", {}, 1)
    store.aliases.promote(to("live", give_to="bob"), "v0")

    with pytest.raises(MissingScope):
        store.leases.succeed(lease, version=version, promotion=to("live", of_owner="alice"))
    assert store.aliases.get("live").version == "v0"
    store.aliases.promote(to("live", give_to="alice"), "v0")
    store.leases.succeed(lease, version=version, promotion=to("live", of_owner="alice"))
    assert store.aliases.get("live").version == "v1"


def test_what_stands_in_the_way_of_a_deletion_is_not_named_to_another_owner(store: Store) -> None:
    made(store, "v1", "alice")
    dataset = store.datasets.add(name="a", format="pairs", source={}, owner="alice").id
    job = submitted(store, owner="root", datasets=(dataset,), versions=("v1",))
    alice = store.seen_by("alice")

    for delete in (lambda: alice.versions.delete("v1"), lambda: alice.datasets.delete(dataset)):
        with pytest.raises(RecordInUse, match="job of another key") as caught:
            delete()
        assert job.id not in caught.value.message
    with pytest.raises(RecordInUse, match=job.id):
        store.versions.delete("v1")
    store.jobs.request_cancel(job.id)
    made(store, "v2", "bob", base="v1")
    with pytest.raises(RecordInUse, match="version of another key") as caught:
        alice.versions.delete("v1")
    assert "v2" not in caught.value.message


def test_worker_shows_its_job_to_those_who_see_the_job(store: Store) -> None:
    job = submitted(store, owner="alice")
    worker = NewWorker("slot", "host", 1, job.kind, "cpu", "1", 0.0)
    store.workers.beat(worker)
    claimed(store)

    shown = {owner: store.seen_by(owner).workers.list()[0].job_id for owner in ("alice", "bob", None)}
    assert shown == {"alice": job.id, "bob": None, None: job.id}


def test_versions_of_earlier_releases_take_the_owners_of_their_jobs_and_data_sets_their_sizes(
    databases: Databases, make_store: Callable[..., Store]
) -> None:
    store = make_store(databases.url(databases.empty()))
    upgrade_to(store, "0005")
    job = {
        "kind": "finetune", "status": "succeeded", "request": "{}", "step": 0, "attempt": 1, "max_attempts": 3,
        "fence": 1, "not_before": 0.0, "created_at": 1.0, "payload_hash": "", "metadata": "{}", "event_count": 0,
    }  # fmt: skip
    version = {"description": "{}", "size_bytes": 1, "status": "ready", "created_at": 1.0}
    dataset = {
        "name": "a", "format": "pairs", "status": "ready", "owner": "alice", "created_at": 1.0, "attempt": 0,
        "fence": 0, "lease_until": 0.0,
    }  # fmt: skip
    with store.database.writing() as connection:
        for table, row in (
            ("jobs", {**job, "id": "j1", "owner": "alice"}),
            ("versions", {**version, "id": "made", "job_id": "j1", "folder": "f"}),
            ("versions", {**version, "id": "base", "job_id": None, "folder": None}),
            ("datasets", {**dataset, "id": "uploaded", "source": '{"size_bytes": 50000000000}'}),
            ("datasets", {**dataset, "id": "registered", "source": '{"path": "/a"}'}),
        ):
            names = ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({names})"), row)
        connection.execute(
            text("INSERT INTO aliases (name, version, generation, updated_at) VALUES ('a', 'made', 1, 0)")
        )

    store.migrate()

    assert [store.versions.get(name).owner for name in ("made", "base")] == ["alice", ""]
    assert store.aliases.get("a").owner == ""
    assert store.jobs.get("j1").by_admin
    assert [store.datasets.get(name).size_bytes for name in ("uploaded", "registered")] == [50_000_000_000, 0]
