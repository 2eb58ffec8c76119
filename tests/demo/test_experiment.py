"""A series of runs: what is used again, and what is trained anew."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import sds_clip.demo.measure
from sds_clip.demo import experiment, fingerprint
from sds_clip.demo.experiment import (
    Outcome,
    Run,
    Series,
    Variant,
    base_outcome,
    read_outcomes,
    run_all,
    summary,
    write_outcome,
)
from sds_clip.demo.measure import StudentScores
from sds_clip.demo.probe import POOLED, TEXT
from sds_clip.demo.sets import RETRIEVAL_BATCH, classification_set, retrieval_set
from sds_clip.demo.world import Split
from sds_clip.models.checkpoints.references import demo_folder
from sds_clip.models.training.parts import Parts
from tests.demo.test_report import run as outcome_of

NEGATIVES = {"negatives": "swap", "negatives_count": 3}
SHORT = {"batch_size": 8, "sds_batch_size": 4, "steps": 2, "warmup_steps": 1, "log_every": 1}
PROBED = {POOLED: [[True, False]] * 3, TEXT: [[True, True]] * 3}
SDS = Variant.of("sds", objective="sds-clip", gradient="sds", **SHORT)
SCORE = Variant.of("score", objective="score", score_draws=2, **NEGATIVES, **SHORT)
CLIP = Variant.of("clip", objective="clip", **NEGATIVES, **SHORT)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
    """One run at a time, in this process; few items are measured."""
    monkeypatch.setattr(sds_clip.demo.measure, "_pairs", partial(retrieval_set, count=RETRIEVAL_BATCH))
    monkeypatch.setattr(sds_clip.demo.measure, "_labelled", partial(classification_set, count=8))
    monkeypatch.setattr(sds_clip.demo.measure, "CLASS_TEMPLATES", ("{}",))
    monkeypatch.setattr(experiment, "probe_model", lambda *_, **__: PROBED)
    with ThreadPoolExecutor(1) as threads:
        yield threads


def series(work_dir: Path, **changes: object) -> Series:
    outcomes = work_dir / "outcomes"
    return replace(Series(Split.VALIDATION, "demo", work_dir, outcomes, pairs=16, per_kind=2), **changes)


def written(work_dir: Path) -> dict[Path, int]:
    """Every file and when it was written."""
    return {file: file.stat().st_mtime_ns for file in work_dir.rglob("*") if file.is_file()}


def test_a_series_is_trained_once_and_another_option_is_trained_anew(tmp_path: Path, pool: Executor) -> None:
    runs = [(SDS, 0), (SCORE, 0)]
    outcomes = run_all(series(tmp_path), runs, pool)
    before = written(tmp_path)

    assert run_all(series(tmp_path), runs, pool) == outcomes
    assert written(tmp_path) == before

    sds, score = outcomes
    assert sds.scored == {}
    assert min(score.scored.values()) > 0
    assert sds.seconds > 0
    assert sds.probes == PROBED
    assert [record["step"] for record in sds.log] == [1, 2]
    (delta,) = tmp_path.glob("score-*/delta/sds_clip_delta.json")
    assert json.loads(delta.read_text())["configuration"]["teacher"] == "demo"

    other = Variant.of("score", **{**dict(SCORE.options), "lr": 0.01})
    (changed,) = run_all(series(tmp_path), [(other, 0)], pool)
    assert changed.log != score.log
    assert changed.options["lr"] == 0.01
    assert changed.scored == score.scored  # the same scores, and nothing of the runs before is touched
    assert {file: when for file, when in written(tmp_path).items() if file in before} == before


def test_a_run_that_lost_its_outcome_is_measured_again_but_not_trained(
    tmp_path: Path, pool: Executor
) -> None:
    (outcome,) = run_all(series(tmp_path), [(CLIP, 0)], pool)
    run = series(tmp_path).plan(CLIP, 0)
    kept = {
        run.folder / "seconds": (run.folder / "seconds").stat().st_mtime_ns,
        **written(run.folder / "delta"),
    }
    run.outcome(series(tmp_path)).unlink()
    (again,) = run_all(series(tmp_path), [(CLIP, 0)], pool)
    assert kept.items() <= written(run.folder).items()
    assert (again.measured, again.log) == (outcome.measured, outcome.log)
    assert again.seconds > 0


def test_a_run_s_files_are_named_by_all_that_it_depends_on(tmp_path: Path) -> None:
    teacher = Path(shutil.copytree(demo_folder().with_name("teacher"), tmp_path / "teacher"))
    plan = series(tmp_path, teacher=str(teacher)).plan
    plans: list[Run] = [
        plan(SCORE, 0),
        plan(SCORE, 1),
        series(tmp_path, teacher=str(teacher), pairs=24).plan(SCORE, 0),
        plan(Variant.of("score", **{**dict(SCORE.options), "negatives_seed": 1}), 0),
    ]
    assert len({run.folder for run in plans}) == len(plans)
    assert pickle.loads(pickle.dumps(plans)) == plans  # as they go to other processes
    assert plans[0].config.teacher == str(teacher)
    assert series(tmp_path).plan(SCORE, 0).folder == plans[0].folder  # the same teacher at another place
    assert plans[0].scores == plans[1].scores
    assert plans[0].scores != plans[2].scores != plans[3].scores != plans[0].scores
    assert plan(CLIP, 0).folder == series(tmp_path).plan(CLIP, 0).folder  # the control has no teacher


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    run = series(tmp_path)
    return run.parts(SCORE.config(0, "demo"))


def test_another_base_teacher_vae_or_negatives_is_another_fingerprint(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SCORE.config(0, "demo")
    assert parts.teacher is not None
    others = [
        parts,
        replace(parts, base=replace(parts.base, version="other")),
        replace(parts, teacher=replace(parts.teacher, version="other")),
        replace(parts, teacher=replace(parts.teacher, vae_version="other")),
    ]
    for of in (fingerprint.of_run, fingerprint.of_scores):
        found = {of(config, other) for other in others}
        with monkeypatch.context() as patch:
            patch.setattr("sds_clip.models.training.parts.hard_negatives", lambda *_, **__: ("other words",))
            found.add(of(config, parts))
        assert len(found) == len(others) + 1


def test_the_setting_s_captions_reach_the_runs_and_scores(tmp_path: Path) -> None:
    tags = {"data": "demo-tags", "negatives": "data", "negatives_count": 8, "score_candidates": "negatives"}
    tagged = Variant.of("score", **{**dict(SCORE.options), **tags})
    plans = [series(tmp_path).plan(variant, 0) for variant in (CLIP, SCORE, tagged)]
    captions = [
        [pairs.sample(index).captions for index in range(16)]
        for pairs in (series(tmp_path).parts(plan.config).pairs for plan in plans)
    ]
    assert captions[0] == captions[1] != captions[2]
    assert len({plan.folder for plan in plans}) == 3
    assert plans[1].scores != plans[2].scores


def test_other_pairs_and_other_items_are_kept_apart_and_the_same_base_is_not(tmp_path: Path) -> None:
    student = Path(shutil.copytree(demo_folder(), tmp_path / "student"))
    one = series(tmp_path)
    assert replace(one, base=f"local-dir:{student}").plan(CLIP, 0).folder == one.plan(CLIP, 0).folder
    assert replace(one, pairs_seed=1).plan(CLIP, 0).folder != one.plan(CLIP, 0).folder
    measured = [one, replace(one, seed=5), replace(one, split=Split.HELD_OUT), replace(one, per_kind=3)]
    assert len({each.plan(CLIP, 0).outcome(each) for each in measured}) == 4


def test_the_items_of_another_seed_are_others(tmp_path: Path, pool: Executor) -> None:
    one = base_outcome(series(tmp_path))
    other = base_outcome(series(tmp_path, seed=5))
    assert one.measured.kinds == other.measured.kinds
    assert one.measured.margins != other.measured.margins
    assert base_outcome(series(tmp_path)) == one  # as it was stored


def test_a_stored_outcome_keeps_what_is_right(tmp_path: Path) -> None:
    margins = [1.23456789e-3, -1e-9, 0.0, -0.25]
    measured = StudentScores(["objects"] * 4, [True] * 4, [False] * 4, 0.9, 0.7, margins)
    outcome = Outcome("a", "all", 1, "heldout", 2.5, {"lr": 1e-3}, measured, [{"step": 1.0}], PROBED)
    write_outcome(tmp_path / "set" / "outcome.json.gz", outcome)
    (found,) = read_outcomes(tmp_path / "set").values()
    assert found.measured.margins == [1.235e-3, -1e-9, 0.0, -0.25]
    assert found.measured.group_match == outcome.measured.group_match
    assert replace(found, measured=measured) == outcome


def test_a_finished_set_is_read_from_its_archive_and_later_runs_from_its_folder(tmp_path: Path) -> None:
    write_outcome(tmp_path / "set" / "packed.json.gz", outcome_of("packed", 5))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(tmp_path / "set" / "packed.json.gz", "packed.json.gz")
    (tmp_path / "set" / "packed.json.gz").unlink()
    write_outcome(tmp_path / "set" / "later.json.gz", outcome_of("later", 6))
    found = read_outcomes(tmp_path / "set")
    assert {name: outcome.variant for name, outcome in found.items()} == {
        "packed.json.gz": "packed",
        "later.json.gz": "later",
    }


def test_progress_shows_no_figure_of_held_out_items() -> None:
    held_out = outcome_of("score", 12)
    assert summary(held_out) == "score (all, seed 0): 450 s"
    assert "GroupMatch" in summary(replace(held_out, split=Split.VALIDATION))
