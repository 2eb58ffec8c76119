"""The confirmation: its questions, and what it reads back of runs that are done."""

from pathlib import Path

import pytest

from demo import confirmation
from demo.arms import PLACEBO
from demo.confirmation import BASES, SEED, SEEDS, compared, questions, series_of
from demo.experiment import write_outcome
from demo.world import Split
from tests.demo.test_report import run


@pytest.fixture(autouse=True)
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirmation, "CHOSEN", {"tags": ("score-base", "score")})


def test_each_question_has_an_objective_its_control_and_its_placebo() -> None:
    tags, places = questions()
    assert [arm.name for arm in tags.arms] == ["score-base", "score", "score-placebo"]
    assert [arm.name for arm in places.arms] == ["sds-1-placebo", "sds-1"]
    for question in (tags, places):
        ours, theirs = (arm.config(0, "demo") for arm in (question.objective, question.placebo))
        assert (ours.teacher, theirs.teacher) == ("demo", PLACEBO)
        assert ours.model_copy(update={"teacher": PLACEBO}) == theirs


def test_each_base_has_pairs_and_students_of_its_own_and_the_new_held_out_items(tmp_path: Path) -> None:
    every = [
        series_of(question, base, teacher="demo", work_dir=tmp_path, outcomes=tmp_path)
        for question in questions()
        for base in BASES
    ]
    assert {(each.split, each.seed, each.per_kind) for each in every} == {(Split.HELD_OUT, SEED, 2000)}
    assert len({each.pairs_seed for each in every}) == len(BASES)
    assert len({each.base for each in every}) == len({each.outcomes for each in every}) == 2 * len(BASES)


def test_stored_outcomes_are_read_back_by_base_and_seed(tmp_path: Path) -> None:
    tags, _ = questions()
    for base in BASES:
        folder = tmp_path / f"confirmation-{base}-tags"
        folder.mkdir()
        write_outcome(folder / "base.json.gz", run("base", 5))
        for arm in tags.arms:
            for seed in SEEDS[::-1]:
                outcome = run(arm.name, base + seed, seed=seed)
                write_outcome(folder / f"{arm.name}-{9 - seed}.json.gz", outcome)
    found = compared(tags, tmp_path)
    assert found.complete
    means = found.values("score").mean(axis=2)
    expected = [(base + seed) / 20 for base in BASES for seed in SEEDS]
    assert means.flatten().tolist() == pytest.approx(expected)
    assert not compared(tags, tmp_path, [*BASES, 99]).complete
