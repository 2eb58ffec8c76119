"""Versions and aliases in a real MLflow, which follows the database and catches up with it."""

import logging
from pathlib import Path
from typing import Any

import pytest

from sds_clip.app.store import Store
from sds_clip.app.store.records import Move, NewVersion
from sds_clip.worker.mirror import MODEL, Mirror, alias_in_mlflow
from tests.mlflow_store import local_mlflow

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

METRIC = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}
DESCRIPTION = {
    "data": {"teacher_version": "t1", "data_hash": "d1"},
    "metrics": {"validation_clip": 1.25},
    "evaluations": {"winoground (ds_1)": {"metrics": {"group_match": METRIC}}},
}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return local_mlflow(tmp_path, monkeypatch)


def register(store: Store, letter: str, base: str | None = None) -> str:
    version = letter * 64
    new = NewVersion(version, f"versions/{version}", DESCRIPTION, 1, base="demo", base_version=base)
    store.versions.register(new)
    return version


def move(store: Store, version: str, alias: str = "default") -> None:
    store.aliases.promote(Move(alias, "me", "a test", None), version)


def in_mlflow(client: Any) -> dict[str, str]:
    """The ids of MLflow's versions, by their numbers."""
    found = client.search_model_versions(f"name = '{MODEL}'")
    return {str(each.version): each.tags["sds_clip.version"] for each in found}


def pointed_to(client: Any, alias: str) -> str:
    return str(client.get_model_version_by_alias(MODEL, alias).tags["sds_clip.version"])


def test_versions_with_lineage_and_figures_and_aliases_follow_the_database(store: Store, client: Any) -> None:
    mirror = Mirror(store, "finetune")
    old = register(store, "a")
    new = register(store, "b", base=old)
    move(store, old)
    mirror.look()

    assert in_mlflow(client) == {"1": old, "2": new}
    copied = client.get_model_version(MODEL, "2")
    assert copied.tags == {
        "sds_clip.version": new,
        "sds_clip.status": "ready",
        "sds_clip.base": "demo",
        "sds_clip.base_version": old,
        "sds_clip.teacher_version": "t1",
        "sds_clip.data_hash": "d1",
    }
    assert copied.description.splitlines() == [
        "- winoground (ds_1): group_match 0.5000 (95 % interval 0.4000 to 0.6000, 100 items)",
        "- validation_clip: 1.2500",
    ]
    assert pointed_to(client, "default") == old

    move(store, new)
    mirror.look()
    assert pointed_to(client, "default") == new
    store.aliases.roll_back(Move("default", "me", "a test", None))
    mirror.look()
    assert pointed_to(client, "default") == old
    store.versions.delete(new)
    mirror.look()
    assert client.get_model_version(MODEL, "2").tags["sds_clip.status"] == "deleted"
    assert in_mlflow(client) == {"1": old, "2": new}


@pytest.mark.long
def test_alias_that_is_removed_is_removed_there_and_others_of_mlflow_stay(store: Store, client: Any) -> None:
    mirror = Mirror(store, "finetune")
    version = register(store, "a")
    for alias in ("default", "trial.1"):
        move(store, version, alias)
    mirror.look()
    client.set_registered_model_alias(MODEL, "theirs", "1")

    store.aliases.remove(Move("trial.1", "me", "a test", None))
    mirror.look()

    assert client.get_registered_model(MODEL).aliases.keys() == {"default", "theirs"}
    move(store, version, "trial.1")
    mirror.look()
    assert pointed_to(client, "trial_1") == version


@pytest.mark.long
def test_a_worker_that_stops_leaves_the_copying_to_another_at_once(store: Store, client: Any) -> None:
    first, second = Mirror(store, "finetune"), Mirror(store, "evaluate")
    first.look()
    version = register(store, "a")
    second.look()
    assert in_mlflow(client) == {}

    second.release()  # what it does not have, it does not give away
    second.look()
    assert in_mlflow(client) == {}
    first.release()
    second.look()
    assert in_mlflow(client) == {"1": version}


def test_mlflow_that_is_away_fails_nothing_and_catches_up(
    store: Store,
    client: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mirror = Mirror(store, "finetune")
    old = register(store, "a")
    with monkeypatch.context() as away:
        (tmp_path / "file").write_text("")
        away.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
        mirror.look()
        new = register(store, "b")
        move(store, old)
        move(store, new)
        mirror.look()
    warnings = [each for each in caplog.records if each.name == "sds_clip.worker.mirror"]
    assert [each.levelno for each in warnings] == [logging.WARNING]

    mirror.look()

    assert set(in_mlflow(client).values()) == {old, new}
    assert pointed_to(client, "default") == new


@pytest.mark.long
def test_one_worker_at_a_time_copies(store: Store, client: Any) -> None:
    first, second = Mirror(store, "finetune"), Mirror(store, "evaluate")
    first.look()
    register(store, "a")
    second.look()
    assert in_mlflow(client) == {}
    first.look()
    assert len(in_mlflow(client)) == 1


@pytest.mark.parametrize(
    ("name", "there"),
    [("default", "default"), ("v1", "alias_v1"), ("Latest", "alias_Latest"), ("a.b-c", "a_b-c")],
)
def test_aliases_that_mlflow_does_not_allow_have_another_name(name: str, there: str) -> None:
    assert alias_in_mlflow(name) == there
