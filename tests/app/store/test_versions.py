"""Versions, the aliases that point to them, and the audit."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.errors import AliasMoved, NothingToRollBack, RecordInUse, UnknownRecord, UnusableRecord
from app.store import Store
from app.store.records import Move, NewVersion, VersionStatus
from tests.app.store.conftest import claimed, submitted


def register(store: Store, *ids: str, **options: Any) -> None:
    for id in ids:
        store.versions.register(
            NewVersion(**{"id": id, "folder": None, "description": {}, "size_bytes": 1, **options})
        )


def to(alias: str = "default", expected: int | None = None, **options: Any) -> Move:
    return Move(
        **{"alias": alias, "who": "me", "why": "a reason", "expected_generation": expected, **options}
    )


def test_alias_moves_and_leaves_its_trail(store: Store) -> None:
    register(store, "v1", "v2")
    first = store.aliases.promote(to(expected=0), "v1")
    second = store.aliases.promote(to(expected=1, metrics={"group": 0.25}, forced=True), "v2")
    assert (first.version, first.generation, first.previous) == ("v1", 1, None)
    assert (second.version, second.generation, second.previous) == ("v2", 2, "v1")
    assert store.aliases.get("default") == second
    assert store.aliases.all() == (second,)
    newest, oldest = store.aliases.promotions("default")
    assert (newest.from_version, newest.to_version, newest.metrics, newest.forced) == (
        "v1",
        "v2",
        {"group": 0.25},
        True,
    )
    assert (oldest.who, oldest.why, oldest.generation, oldest.job_id) == ("me", "a reason", 1, None)
    assert store.aliases.promotions("default", limit=1) == (newest,)
    assert store.aliases.promotions("other") == ()


def test_alias_that_moved_meanwhile_is_not_moved_again(store: Store) -> None:
    register(store, "v1", "v2")
    store.aliases.promote(to(expected=0), "v1")
    for expected in (0, 2):
        with pytest.raises(AliasMoved, match="generation 1") as caught:
            store.aliases.promote(to(expected=expected), "v2")
        assert (caught.value.status, caught.value.retryable) == (409, True)
    with pytest.raises(AliasMoved):
        store.aliases.promote(to("new", expected=1), "v2")
    assert len(store.aliases.promotions()) == 1


def test_alias_that_points_there_already_keeps_its_previous_version(store: Store) -> None:
    register(store, "v1", "v2")
    store.aliases.promote(to(), "v1")
    there = store.aliases.promote(to(), "v2")
    assert store.aliases.promote(to(), "v2") == there
    assert len(store.aliases.promotions()) == 2


def test_one_of_many_simultaneous_moves_wins(store: Store) -> None:
    register(store, *(f"v{n}" for n in range(6)))
    moved: list[str] = []
    barrier = threading.Barrier(6)

    def promote(version: str) -> None:
        barrier.wait()
        with contextlib.suppress(AliasMoved):
            moved.append(store.aliases.promote(to(expected=0), version).version)

    threads = [threading.Thread(target=promote, args=(f"v{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert moved == [store.aliases.get("default").version]
    assert len(store.aliases.promotions()) == 1


def test_rollback_swaps_the_version_with_the_previous_one(store: Store) -> None:
    register(store, "v1", "v2")
    store.aliases.promote(to(), "v1")
    with pytest.raises(NothingToRollBack):
        store.aliases.roll_back(to())
    store.aliases.promote(to(), "v2")
    with pytest.raises(AliasMoved):
        store.aliases.roll_back(to(expected=1))
    back = store.aliases.roll_back(to(expected=2))
    assert (back.version, back.previous, back.generation) == ("v1", "v2", 3)
    forth = store.aliases.roll_back(to())
    assert (forth.version, forth.previous, forth.generation) == ("v2", "v1", 4)


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


def test_version_is_never_both_deleted_and_pointed_at(store: Store, make_store: Callable[..., Store]) -> None:
    register(store, *(f"v{n}" for n in range(10)))
    for n in range(10):
        barrier = threading.Barrier(2)
        outcomes: list[str] = []

        def attempt(name: str, act: Callable[[], object], barrier: threading.Barrier, out: list[str]) -> None:
            barrier.wait()
            with contextlib.suppress(RecordInUse, UnusableRecord):
                act()
                out.append(name)

        threads = [
            threading.Thread(target=attempt, args=(name, act, barrier, outcomes))
            for name, act in {
                "deleted": lambda n=n: store.versions.delete(f"v{n}"),
                "promoted": lambda n=n: store.aliases.promote(to(f"alias-{n}"), f"v{n}"),
            }.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 1


def test_job_that_made_a_version_is_found_by_it(store: Store) -> None:
    job = submitted(store)
    store.leases.succeed(claimed(store), version=NewVersion("v1", "v1", {}, 1))
    assert store.versions.get("v1").job_id == job.id
