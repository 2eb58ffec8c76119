"""What a service registers of what it serves."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from sds_clip.app.registry.store_source import register_served, unpublished_version
from sds_clip.app.store import Store
from sds_clip.app.store.records import Move
from sds_clip.models.clip.model import Clip
from tests.databases import on_both


@pytest.fixture
def store(database_url: str, small_clip: Clip) -> Iterator[Store]:
    """A store over which a service has started with one model."""
    store = Store(database_url)
    register_served(store, [small_clip])
    yield store
    store.close()


@on_both
def test_default_stays_where_a_person_moved_it_and_follows_the_settings_until_then(
    store: Store, small_clip: Clip, other_clip: Clip
) -> None:
    register_served(store, [other_clip, small_clip])  # started again with another first model
    assert store.aliases.get("default").version == other_clip.version

    store.aliases.roll_back(Move(alias="default", who="a person", why="", expected_generation=None))
    register_served(store, [other_clip, small_clip])
    assert store.aliases.get("default").version == small_clip.version


@on_both
def test_default_leaves_a_model_that_a_person_moved_it_to_and_that_is_no_longer_served(
    store: Store, small_clip: Clip, other_clip: Clip
) -> None:
    store.versions.register(unpublished_version(other_clip))
    store.aliases.promote(Move("default", "a person", "", expected_generation=None), other_clip.version)
    store.aliases.roll_back(Move("default", "a person", "", expected_generation=None))
    register_served(store, [other_clip])
    assert store.aliases.get("default").version == other_clip.version


@on_both
def test_default_stays_on_a_published_version_whatever_is_served(
    store: Store, small_clip: Clip, other_clip: Clip
) -> None:
    store.versions.register(replace(unpublished_version(other_clip), folder="versions/other"))
    store.aliases.promote(Move("default", "a person", "", expected_generation=None), other_clip.version)
    register_served(store, [small_clip])
    assert store.aliases.get("default").version == other_clip.version


@on_both
def test_default_stays_where_it_is_locked_and_follows_the_settings_again_when_it_is_not(
    store: Store, small_clip: Clip, other_clip: Clip
) -> None:
    store.aliases.lock("default", "ops", "release freeze")
    register_served(store, [other_clip, small_clip])
    assert store.aliases.get("default").version == small_clip.version

    store.aliases.unlock("default", "ops", "released")
    register_served(store, [other_clip, small_clip])
    assert store.aliases.get("default").version == other_clip.version
