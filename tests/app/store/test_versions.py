"""Versions: what needs them, and their deletion."""

from functools import partial

import pytest

from sds_clip.app.errors import AmbiguousName, NothingToRollBack, RecordInUse, UnknownRecord, UnusableRecord
from sds_clip.app.store import Store
from sds_clip.app.store.records import NewVersion, VersionStatus
from tests.app.store.conftest import at_once, claimed, register, submitted, to


def test_unknown_things_are_named_as_such(store: Store) -> None:
    for ask in (
        lambda: store.aliases.get("none"),
        lambda: store.aliases.roll_back(to("none")),
        lambda: store.versions.get("none"),
        lambda: store.versions.delete("none"),
    ):
        with pytest.raises(UnknownRecord):
            ask()
    with pytest.raises(UnusableRecord, match="unknown"):
        store.aliases.promote(to(), "none")
    with pytest.raises(UnusableRecord, match="unknown"):
        register(store, "v1", base_version="none")


def test_version_is_named_by_a_beginning_that_no_other_has(store: Store) -> None:
    one, other = ("0123abcd" + end * 56 for end in "0f")
    for version in (one, other):
        register(store, version)
    store.versions.delete(other)

    assert store.versions.named(one[:9]) == one
    assert store.versions.named(other[:9]) == other  # as with the whole id, which finds a deleted one too
    with pytest.raises(UnknownRecord):
        store.versions.named("0123abce")
    with pytest.raises(AmbiguousName, match=f"several versions: {one}, {other}. Use"):
        store.versions.named("0123abcd")


def test_many_versions_of_one_beginning_are_not_all_listed(store: Store) -> None:
    for number in range(9):
        register(store, f"0123abcd{number}" + "0" * 55)

    with pytest.raises(AmbiguousName, match="and others") as caught:
        store.versions.named("0123abcd")
    assert caught.value.message.count("0123abcd") == 1 + 3


def test_beginning_is_unique_among_the_versions_that_an_owner_sees(store: Store) -> None:
    of_alice, of_bob = ("0123abcd" + end * 56 for end in "0f")
    for owner, version in (("alice", of_alice), ("bob", of_bob)):
        submitted(store, owner=owner)
        store.leases.succeed(claimed(store), version=NewVersion(version, "folder", {}, 1), result={})

    assert store.seen_by("alice").versions.named("0123abcd") == of_alice
    with pytest.raises(UnknownRecord):
        store.seen_by("alice").versions.named(of_bob[:12])
    with pytest.raises(AmbiguousName):
        store.versions.named("0123abcd")


def test_registering_again_changes_nothing(store: Store) -> None:
    register(store, "v1", folder="a")
    register(store, "v1", folder="b")
    assert store.versions.get("v1").folder == "a"


@pytest.mark.parametrize("need", ["alias", "job", "version"])
def test_version_that_is_needed_is_not_deleted(store: Store, need: str) -> None:
    register(store, "v1")
    {
        "alias": lambda: store.aliases.promote(to(), "v1"),
        "job": lambda: submitted(store, versions=("v1",)),
        "version": lambda: register(store, "v2", base_version="v1"),
    }[need]()
    with pytest.raises(RecordInUse, match=f"the {need} ") as caught:
        store.versions.delete("v1")
    assert caught.value.status == 409
    assert store.versions.get("v1").status is VersionStatus.READY


def test_version_is_deleted_when_nothing_needs_it_any_more(store: Store) -> None:
    register(store, "v1")
    register(store, "v2", base_version="v1")
    job = submitted(store, versions=("v1",))
    store.jobs.request_cancel(job.id)
    store.aliases.promote(to(), "v1")
    register(store, "other")
    store.aliases.promote(to(), "other")
    store.versions.delete("v2")
    gone = store.versions.delete("v1")
    assert gone.status is VersionStatus.DELETED
    assert store.versions.delete("v1") == gone
    assert [version.id for version in store.versions.list().items] == ["other"]
    assert {version.id for version in store.versions.list(status=None).items} == {"v1", "v2", "other"}
    assert store.aliases.get("default").previous is None
    with pytest.raises(NothingToRollBack):
        store.aliases.roll_back(to())


@pytest.mark.parametrize("use", ["alias", "job", "base"])
def test_deleted_version_is_of_no_use(store: Store, use: str) -> None:
    register(store, "v1")
    store.versions.delete("v1")
    with pytest.raises(UnusableRecord, match="deleted"):
        {
            "alias": lambda: store.aliases.promote(to(), "v1"),
            "job": lambda: submitted(store, versions=("v1",)),
            "base": lambda: register(store, "v2", base_version="v1"),
        }[use]()


def test_version_is_never_both_deleted_and_pointed_at(store: Store) -> None:
    register(store, *(f"v{n}" for n in range(10)))
    for n in range(10):
        promote = partial(store.aliases.promote, to(f"alias-{n}"), f"v{n}")
        answers = at_once(partial(store.versions.delete, f"v{n}"), promote)
        assert [isinstance(answer, RecordInUse | UnusableRecord) for answer in answers].count(True) == 1


def test_job_that_made_a_version_is_found_by_it(store: Store) -> None:
    job = submitted(store)
    store.leases.succeed(claimed(store), version=NewVersion("v1", "v1", {}, 1))
    assert store.versions.get("v1").job_id == job.id
