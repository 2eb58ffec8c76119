import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from sds_clip.models.evaluation.computed_by import code_version
from sds_clip.models.evaluation.results import (
    ItemOutcome,
    Metric,
    Results,
    as_json,
    read_results,
    write_results,
)
from sds_clip.models.images.ref import ImageRef

RESULTS = Results(
    benchmark="winoground",
    primary="group_score",
    outcome="group",
    metrics={
        "group_score": Metric(0.5, 0.2, 0.8, 2, 1, 1 / 6, "group"),
        "group_match": Metric(0.5, 0.2, 0.8, 2, 0, 1 / 2, "group_match", 0.25),
    },
    by_tag={"Größe": {"group_score": Metric(1.0, 0.3, 1.0, 1)}},
    items=(
        ItemOutcome(
            "0", {"group": True}, {"group": 0.25}, ("Größe",), (ImageRef(Path("a/0.png")),), ("a", "b")
        ),
        ItemOutcome(
            "1", {"group": False}, {"group": 0.0}, (), (ImageRef(Path("a/1.png"), (1, 2, 3, 4)),), ()
        ),
    ),
    provenance={"model": "demo", "data_hash": "0" * 64, "macro_tags": ["Größe"]},
    macro_tags=("Größe",),
)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    write_results(tmp_path / "new/results.json", RESULTS)
    assert read_results(tmp_path / "new/results.json") == RESULTS
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["results.json"]


def test_half_a_surrogate_pair_is_written_and_read_again(tmp_path: Path) -> None:
    item = ItemOutcome("dog\udc80.png", {"acc1": True}, {"acc1": 0.1}, ("\ud800",), (), ())
    results = replace(RESULTS, items=(item,))
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_items_can_be_left_out(tmp_path: Path) -> None:
    assert "items" not in as_json(RESULTS, items=False)


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    broken = Results("a", "b", "c", {"b": Metric(float("nan"), 0.0, 0.0, 1)}, {}, ())
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(tmp_path / "results.json", broken)
    assert not list(tmp_path.iterdir())


def test_an_image_states_the_commit_that_it_was_built_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS_CLIP_COMMIT", "0123456789ab")
    assert code_version.__wrapped__() == f"{version('sds-clip')}+0123456789ab"


def test_a_checkout_states_its_own_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDS_CLIP_COMMIT", raising=False)
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        pytest.skip("this is no checkout")
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert code_version.__wrapped__().removesuffix("-dirty") == f"{version('sds-clip')}+{commit}"
