"""Names that stand for the ids of jobs and data sets."""

from collections.abc import Callable
from functools import partial

import pytest

from sds_clip.app.errors import AmbiguousName, NameTaken, UnknownRecord
from sds_clip.app.store import Store
from sds_clip.app.store.records import NewJob
from sds_clip.app.store.states import JobKind
from tests.app.store.conftest import at_once

Add = Callable[..., str]


@pytest.fixture(params=["jobs", "datasets"])
def table(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def add(store: Store, table: str) -> Add:
    """Adds a job or a data set with a name, and returns its id."""

    def added(name: str, owner: str = "alice") -> str:
        if table == "datasets":
            return store.datasets.add(name=name, format="pairs", source={}, owner=owner).id
        return store.jobs.submit(NewJob(JobKind.FINETUNE, {}, name=name, owner=owner))[0].id

    return added


def named(store: Store, table: str, name: str, owner: str, *, sees: str | None) -> str:
    return str(getattr(store.seen_by(sees), table).named(name, owner))


def test_a_name_is_one_of_its_owner(store: Store, table: str, add: Add) -> None:
    first, of_bob = add("coco"), add("coco", "bob")

    with pytest.raises(NameTaken, match=first):
        add("coco")

    assert named(store, table, "coco", "alice", sees="alice") == first
    assert named(store, table, "coco", "bob", sees="bob") == of_bob
    with pytest.raises(UnknownRecord):
        named(store, table, "coco", "carol", sees="carol")


def test_who_sees_all_finds_its_own_first_and_none_of_several(store: Store, table: str, add: Add) -> None:
    of_alice = add("coco")
    assert named(store, table, "coco", "root", sees=None) == of_alice
    of_bob = add("coco", "bob")
    with pytest.raises(AmbiguousName) as caught:
        named(store, table, "coco", "root", sees=None)
    assert all(id in caught.value.message for id in (of_alice, of_bob))
    own = add("coco", "root")
    assert named(store, table, "coco", "root", sees=None) == own


def test_any_number_may_have_no_name(store: Store, table: str, add: Add) -> None:
    assert add("") != add("")


def test_a_deleted_data_set_gives_its_name_back(store: Store) -> None:
    first = store.datasets.add(name="coco", format="pairs", source={}).id
    store.datasets.delete(first)
    with pytest.raises(UnknownRecord):
        store.datasets.named("coco", "")
    assert store.datasets.add(name="coco", format="pairs", source={}).id == store.datasets.named("coco", "")


def test_only_one_of_two_at_the_same_time_gets_a_name(store: Store, table: str, add: Add) -> None:
    answers = at_once(*[partial(add, "coco")] * 4)
    found = [answer for answer in answers if not isinstance(answer, NameTaken)]
    assert found == [named(store, table, "coco", "alice", sees="alice")]
