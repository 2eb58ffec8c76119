"""Aliases: moves, rollbacks, locks, and the audit that tells of them."""

from functools import partial

import pytest

from sds_clip.app.errors import AliasLocked, AliasMoved, NothingToRollBack, RecordInUse, UnknownRecord
from sds_clip.app.store import Store
from sds_clip.app.store.paging import Search
from sds_clip.app.store.records import Alias, AliasAction, NewVersion
from tests.app.store.conftest import at_once, begun, register, to


def promoted(store: Store, *versions: str) -> Alias:
    """The alias after it was pointed to each of the versions, which are registered."""
    register(store, *versions)
    for version in versions:
        alias = store.aliases.promote(to(), version)
    return alias


def rolled_back(store: Store) -> str:
    """The version after another rollback, at which the store had said beforehand that it would lead there."""
    promise = store.aliases.get("default").previous
    assert store.aliases.roll_back(to()).version == promise
    return str(promise)


def test_alias_moves_and_leaves_its_trail(store: Store) -> None:
    register(store, "v1", "v2")
    first = store.aliases.promote(to(expected=0), "v1")
    second = store.aliases.promote(to(expected=1, metrics={"group": 0.25}, forced=True), "v2")
    assert (first.version, first.generation, first.previous) == ("v1", 1, None)
    assert (second.version, second.generation, second.previous) == ("v2", 2, "v1")
    assert store.aliases.get("default") == second
    assert store.aliases.all() == (second,)
    newest, oldest = store.aliases.promotions("default")
    assert (newest.from_version, newest.to_version) == ("v1", "v2")
    assert (newest.metrics, newest.forced) == ({"group": 0.25}, True)
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
    answers = at_once(*(partial(store.aliases.promote, to(expected=0), f"v{n}") for n in range(6)))
    (moved,) = (answer for answer in answers if not isinstance(answer, AliasMoved))
    assert moved == store.aliases.get("default")
    assert len(store.aliases.promotions()) == 1


def test_rollbacks_walk_back_the_history_and_stop_at_its_beginning(store: Store) -> None:
    promoted(store, "a", "b", "c")
    back = store.aliases.roll_back(to())
    assert (back.version, back.previous, back.generation) == ("b", "a", 4)
    back = store.aliases.roll_back(to())
    assert (back.version, back.previous, back.generation) == ("a", None, 5)
    with pytest.raises(NothingToRollBack, match="no earlier version"):
        store.aliases.roll_back(to())
    assert [line.action for line in store.aliases.promotions()] == ["rollback"] * 2 + ["promote"] * 3
    assert store.aliases.get("default") == back


def test_rollback_after_a_rollback_and_a_promotion_leads_to_what_was_served_before_it(store: Store) -> None:
    promoted(store, "a", "b", "c")
    rolled_back(store)
    promoted(store, "d")
    assert [rolled_back(store), rolled_back(store)] == ["b", "a"]
    promoted(store, "c")  # forward again is a promotion
    promoted(store, "a")
    assert [rolled_back(store), rolled_back(store)] == ["c", "a"]
    assert store.aliases.get("default").previous is None


def test_rollback_compares_generations_like_a_promotion(store: Store) -> None:
    promoted(store, "a", "b")
    with pytest.raises(AliasMoved, match="generation 2"):
        store.aliases.roll_back(to(expected=1))
    assert store.aliases.roll_back(to(expected=2)).version == "a"


def test_aliases_have_histories_of_their_own(store: Store) -> None:
    promoted(store, "a", "b")
    store.aliases.promote(to("other"), "b")
    with pytest.raises(NothingToRollBack):
        store.aliases.roll_back(to("other"))
    assert rolled_back(store) == "a"


def test_deleted_versions_are_skipped(store: Store) -> None:
    promoted(store, "a", "b", "c", "d")
    store.versions.delete("b")
    store.versions.delete("c")
    assert rolled_back(store) == "a"
    with pytest.raises(NothingToRollBack):
        store.aliases.roll_back(to())


def test_rollback_does_not_lead_to_the_version_that_is_served_already(store: Store) -> None:
    promoted(store, "a", "b")
    store.aliases.promote(to(), "a")
    assert store.aliases.get("default").previous == "b"
    store.versions.delete("b")
    assert store.aliases.get("default").previous is None


def test_version_that_comes_back_after_its_deletion_is_rolled_back_to_again(store: Store) -> None:
    promoted(store, "a", "b", "c")
    store.versions.delete("b")
    promoted(store, "d")
    register(store, "b")
    assert [rolled_back(store), rolled_back(store)] == ["c", "b"]


def test_locked_alias_stays_where_it_is_and_says_why(store: Store) -> None:
    promoted(store, "a", "b")
    locked = store.aliases.lock("default", "ops", "release freeze")
    assert locked.lock is not None
    assert (locked.lock.who, locked.lock.why, locked.generation) == ("ops", "release freeze", 2)
    for move in (
        lambda: store.aliases.promote(to(forced=True), "a"),
        lambda: store.aliases.roll_back(to()),
    ):
        with pytest.raises(AliasLocked) as caught:
            move()
        assert (caught.value.status, caught.value.code) == (409, "alias_locked")
        for part in ("default", "ops", "UTC", "release freeze", "/models/default/unlock"):
            assert part in caught.value.message
    assert store.aliases.get("default") == locked
    assert store.aliases.promote(to(), "b") == locked  # it points there
    store.aliases.promote(to("other"), "a")

    unlocked = store.aliases.unlock("default", "boss", "released")
    assert unlocked.lock is None
    assert rolled_back(store) == "a"


def test_locking_twice_keeps_the_first_lock_and_both_leave_one_line_in_the_audit(store: Store) -> None:
    alias = promoted(store, "a", "b")
    assert store.aliases.unlock("default", "ops", "it is open") == alias
    first = store.aliases.lock("default", "ops", "release freeze")
    assert store.aliases.lock("default", "another", "a second reason") == first
    for _ in range(2):
        assert store.aliases.unlock("default", "boss", "released") == alias
    unlock, lock, *moves = store.aliases.promotions("default")
    assert [(line.action, line.who, line.why) for line in (lock, unlock)] == [
        (AliasAction.LOCK, "ops", "release freeze"),
        (AliasAction.UNLOCK, "boss", "released"),
    ]
    assert (lock.from_version, lock.to_version, lock.generation) == ("b", "b", 2)
    assert first.lock is not None
    assert lock.at == first.lock.at
    assert list(store.aliases.promotions("default", moves_only=True)) == moves
    assert rolled_back(store) == "a"


def test_unknown_alias_can_be_neither_locked_nor_unlocked(store: Store) -> None:
    for act in (store.aliases.lock, store.aliases.unlock):
        with pytest.raises(UnknownRecord):
            act("none", "ops", "a reason")


def test_job_that_would_move_a_locked_alias_changes_nothing(store: Store) -> None:
    alias = promoted(store, "a")
    lease = begun(store)
    locked = store.aliases.lock("default", "ops", "release freeze")
    with pytest.raises(AliasLocked):
        store.leases.succeed(
            lease, version=NewVersion("v1", "v1", {}, 1), promotion=to(expected=alias.generation)
        )
    assert store.aliases.get("default") == locked
    assert store.jobs.get(lease.job_id).result_version is None


def test_previous_version_is_never_a_deleted_one(store: Store) -> None:
    register(store, *(f"v{n}" for n in range(6)))
    for n in range(5):
        promoted(store, "a", f"v{n}", "b", "c")
        at_once(partial(store.versions.delete, f"v{n}"), partial(store.aliases.roll_back, to()))
        assert store.aliases.get("default").previous == "a"


def test_removed_alias_is_gone_and_its_version_and_audit_stay(store: Store) -> None:
    register(store, "a", "b")
    store.aliases.promote(to("live"), "a")
    store.aliases.promote(to("live"), "b")

    removed = store.aliases.remove(to("live", who="boss", why="the trial is over"))
    assert (removed.version, removed.generation, removed.previous) == ("b", 3, None)
    assert removed.removed_at is not None
    assert store.aliases.remove(to("live", why="again")) == removed
    assert (store.aliases.all(), store.aliases.ever()) == ((), (removed,))
    for gone in (
        lambda: store.aliases.get("live"),
        lambda: store.aliases.lock("live", "ops", "a reason"),
        lambda: store.aliases.roll_back(to("live")),
        lambda: store.aliases.remove(to("none")),
    ):
        with pytest.raises(UnknownRecord):
            gone()
    line, *moves = store.aliases.promotions("live")
    assert (line.action, line.who, line.why) == (AliasAction.REMOVE, "boss", "the trial is over")
    assert (line.from_version, line.to_version, line.generation, line.at) == ("b", "b", 3, removed.removed_at)
    assert len(moves) == 2
    assert store.versions.list(search=Search(name="live")).items == ()
    store.versions.delete("b")  # nothing needs it any more


def test_alias_that_is_created_again_goes_on_counting_and_begins_a_new_history(store: Store) -> None:
    register(store, "a", "b", "c")
    store.aliases.promote(to("live", give_to="alice"), "a")
    store.aliases.promote(to("live"), "b")
    store.aliases.remove(to("live"))

    with pytest.raises(AliasMoved, match="no alias live"):
        store.aliases.promote(to("live", expected=3), "c")
    again = store.aliases.promote(to("live", expected=0), "c")
    assert (again.generation, again.previous, again.owner, again.removed_at) == (4, None, "", None)
    assert store.aliases.get("live") == again
    with pytest.raises(NothingToRollBack):
        store.aliases.roll_back(to("live"))
    store.aliases.promote(to("live"), "b")
    back = store.aliases.roll_back(to("live"))
    assert (back.version, back.previous) == ("c", None)


def test_the_default_a_locked_alias_and_one_that_moved_meanwhile_are_not_removed(store: Store) -> None:
    promoted(store, "a")
    live = store.aliases.promote(to("live"), "a")
    with pytest.raises(RecordInUse, match=r"name no model\. Point it to another version") as caught:
        store.aliases.remove(to())
    assert (caught.value.status, caught.value.param) == (409, "alias")
    with pytest.raises(AliasMoved, match="generation 1"):
        store.aliases.remove(to("live", expected=7))
    store.aliases.lock("live", "ops", "release freeze")
    with pytest.raises(AliasLocked, match="release freeze"):
        store.aliases.remove(to("live"))
    assert store.aliases.unlock("live", "ops", "released") == live


def test_one_of_many_that_create_a_removed_alias_again_wins(store: Store) -> None:
    versions = [f"v{n}" for n in range(4)]
    register(store, *versions)
    for _ in range(3):
        store.aliases.promote(to("live"), "v0")
        store.aliases.remove(to("live"))
        last = store.aliases.ever()[0].generation
        move = to("live", expected=0)
        answers = at_once(*(partial(store.aliases.promote, move, version) for version in versions))
        (created,) = (answer for answer in answers if not isinstance(answer, AliasMoved))
        assert created == store.aliases.get("live")
        assert created.generation == last + 1
