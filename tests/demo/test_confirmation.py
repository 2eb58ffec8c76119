"""The confirmation: its questions, and what it reads back of runs that are done."""

import shutil
from pathlib import Path

import pytest

from sds_clip.demo import confirmation
from sds_clip.demo.arms import PLACEBO
from sds_clip.demo.confirmation import BASES, SEED, SEEDS, compared, questions, series_of
from sds_clip.demo.experiment import write_outcome
from sds_clip.demo.world import Split
from tests.demo.test_report import run


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = {
        "exact": ("clip-choice", "score"),
        "tags": ("score-base", "score"),
        "proposed": ("clip", "sds-3"),
    }
    monkeypatch.setattr(confirmation, "CHOSEN", choice)
    monkeypatch.setattr(confirmation, "PLACES_ARM", "sds-1")


def test_nothing_held_out_is_looked_at_before_all_is_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(confirmation, "CHOSEN", {"tags": ("score-base", "score")})
    monkeypatch.setattr(
        "sys.argv", ["confirmation", "--work-dir", str(tmp_path), "--outcomes", str(tmp_path)]
    )
    with pytest.raises(SystemExit, match="2"):
        confirmation.main()
    assert "CHOSEN" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("chosen")
def test_each_question_has_an_objective_its_control_and_its_placebo() -> None:
    _, tags, proposed, places = questions()
    assert [arm.name for arm in tags.arms] == ["score-base", "score", "score-placebo"]
    assert [arm.name for arm in proposed.arms] == ["clip", "sds-3", "sds-3-placebo"]
    assert [arm.name for arm in places.arms] == ["sds-1-placebo", "sds-1"]
    for question in questions():
        ours, theirs = (arm.config(0, "demo") for arm in (question.objective, question.placebo))
        assert (ours.teacher, theirs.teacher) == ("demo", PLACEBO)
        assert ours.model_copy(update={"teacher": PLACEBO}) == theirs


@pytest.mark.usefixtures("chosen")
def test_each_base_has_pairs_and_students_of_its_own_and_the_new_held_out_items(tmp_path: Path) -> None:
    every = [
        series_of(question, base, teacher="demo", work_dir=tmp_path, outcomes=tmp_path)
        for question in questions()
        for base in BASES
    ]
    assert {(each.split, each.seed, each.per_kind) for each in every} == {(Split.HELD_OUT, SEED, 2000)}
    assert len({each.pairs_seed for each in every}) == len(BASES)
    assert len({each.base for each in every}) == 8
    assert len({each.outcomes for each in every}) == 16


@pytest.mark.usefixtures("chosen")
def test_stored_outcomes_are_read_back_by_base_and_seed(tmp_path: Path) -> None:
    _, tags, *_ = questions()
    for base in BASES:
        folder = tmp_path / f"confirmation-{base}-tags"
        folder.mkdir()
        write_outcome(folder / "base.json.gz", run("base", 5))
        for arm in tags.arms:
            for seed in SEEDS[::-1]:
                outcome = run(arm.name, base + seed, seed=seed)
                write_outcome(folder / f"{arm.name}-{9 - seed}.json.gz", outcome)
    found = compared(tags, tmp_path)
    assert found.lacking(SEEDS) == []
    means = found.measure.values(found.arms["score"]).mean(axis=2)
    expected = [(base + seed) / 20 for base in BASES for seed in SEEDS]
    assert means.flatten().tolist() == pytest.approx(expected)
    again = tmp_path / "confirmation-12-tags" / "score-of-another-student.json.gz"
    write_outcome(again, run("score", 1))
    assert compared(tags, tmp_path).lacking(SEEDS) == ["score"]


def test_the_committed_tables_are_those_of_the_committed_outcomes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copy("docs/results.md", tmp_path)
    monkeypatch.setattr("sys.argv", ["confirmation", "--bases", "--into", str(tmp_path)])
    confirmation.main()
    assert (tmp_path / "results.md").read_text() == Path("docs/results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 0
