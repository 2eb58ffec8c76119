from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from demo.experiment import Outcome
from demo.measure import StudentScores
from demo.report import screening_table, tables, write_report, write_screening

OPENING, CLOSING = "<!-- results -->", "<!-- /results -->"
KINDS = ["attributes"] * 20 + ["relation"] * 20
BASE = Outcome(
    "base",
    "none",
    0,
    "heldout",
    0.0,
    {},
    StudentScores(KINDS, [False] * 40, [True] * 40, 0.9, 0.7, [-1.0, -2.0] * 20),
    [],
)
FORMATS = {"precision": "float32", "teacher_precision": "bfloat16"}
CONTROLS = {("layernorm", "sds"): "clip", ("all", "sds"): "clip"}


def run(
    variant: str, right: int, *, seed: int = 0, trainable: str = "layernorm", retrieval: float = 0.9
) -> Outcome:
    """A run that has the first `right` items of each kind right, and all images."""
    text = [number < right for number in range(20)] * 2
    margins = [1.0 if number < right else -1.0 for number in range(20)] * 2
    measured = StudentScores(KINDS, text, [True] * 40, retrieval, 0.71, margins)
    log = [{"step": float(step), "clip": 1 / step} for step in (10, 20, 30)]
    return Outcome(variant, trainable, seed, "heldout", 450.0, FORMATS, measured, log)


OUTCOMES = [run("clip", 2), run("clip", 4, seed=1), run("sds", 12), run("sds", 14, seed=1, retrieval=0.888)]


def printed(outcomes: list[Outcome] = OUTCOMES) -> str:
    return tables(
        outcomes, BASE, CONTROLS, command="make demo-distil", scoring_s=600.0, picture="results.png"
    )


def cells(text: str, row: str) -> list[list[str]]:
    """The cells of all rows of that name."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith(f"| {row} |")]
    return [[cell.strip() for cell in line] for line in lines]


def write(outcomes: list[Outcome], folder: Path) -> None:
    write_report(outcomes, BASE, CONTROLS, folder, command="make demo-distil", scoring_s=600.0)


@pytest.mark.parametrize(
    ("score", "table", "chance"), [("GroupMatch", 0, "50.0"), ("group score", 1, "16.7")]
)
def test_scores_stand_by_kind_with_intervals_each_seed_zero_shot_and_chance(
    score: str, table: int, chance: str
) -> None:
    (header,) = cells(printed(), score)
    base, control, variant, by_chance = (
        cells(printed(), row)[table] for row in ("base", "clip", "sds", "chance")
    )

    assert header[:6] == [score, "all", "attributes", "relation", "zero-shot", "each seed"]
    assert base[1:6] == ["0.0 (0.0 to 0.0)", "0.0 (0.0 to 0.0)", "0.0 (0.0 to 0.0)", "70.0", ""]
    assert control[1].startswith("15.0 (")
    assert control[4:6] == ["71.0", "10.0, 20.0"]
    assert variant[1].startswith("65.0 (")
    assert variant[5] == "60.0, 70.0"
    assert by_chance[1:6] == [chance, chance, chance, "0.5", ""]


def test_difference_names_the_control_with_interval_and_both_p() -> None:
    control, variant = (cells(printed(), row)[0] for row in ("clip", "sds"))

    assert control[6:] == ["", "", ""]
    # In both seeds 10 of 20 items a kind are better and none is worse: 2 / 2^20.
    assert variant[6].startswith("+50.0 (+")
    assert variant[6].endswith(") over clip")
    assert variant[7:] == ["< 0.001", "< 0.001"]


def test_other_scores_and_their_change_to_the_base_stand_below() -> None:
    base, variant, chance = (cells(printed(), row)[2] for row in ("base", "sds", "chance"))

    # The base's margins are -1 and -2: a mean of -1.5 over a deviation of (10 / 39)^0.5.
    assert base == ["base", "-2.96", "0.0", "100.0", "90.0", "", "70.0", ""]
    assert variant[2:] == ["65.0", "100.0", "89.4", "-0.6 (+0.0, -1.2)", "71.0", "+1.0 (+1.0, +1.0)"]
    assert chance == ["chance", "", "25.0", "25.0", "0.8", "", "0.5", ""]


def test_each_set_of_trained_parameters_has_its_block_and_its_own_control() -> None:
    text = printed([*OUTCOMES, run("clip", 10, trainable="all"), run("sds", 10, trainable="all")])

    alone, everything = text.split("### All parameters trained")
    assert "### LayerNorms alone trained" in alone
    assert cells(alone, "sds")[0][6].startswith("+50.0 (")
    assert cells(everything, "sds")[0][6] == "+0.0 (+0.0 to +0.0) over clip"
    assert cells(everything, "sds")[0][7:] == ["1.00", "1.00"]
    assert cells(everything, "base")


def test_every_row_has_as_many_cells_as_its_header() -> None:
    for table in printed().split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_command_time_part_and_seeds_are_stated() -> None:
    assert printed().startswith(
        "`make demo-distil`: 4 runs (seeds 0, 1), 30 minutes of one core, and 10 for the teacher's scores that they "
        "share; the student in float32, the teacher in bfloat16. "
    )
    assert "the part `heldout`: 20 attributes, 20 relation." in printed()


def test_control_that_was_not_run_is_refused() -> None:
    with pytest.raises(ValueError, match="sds has no runs of its control clip"):
        printed([run("sds", 3)])


def test_a_first_report_makes_the_page_and_the_figure(tmp_path: Path) -> None:
    write(OUTCOMES, tmp_path / "docs")

    assert printed() in (tmp_path / "docs" / "results.md").read_text()
    with Image.open(tmp_path / "docs" / "results.png") as figure:
        assert figure.format == "PNG"


def test_prose_around_the_markers_survives_a_rerun(tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    file.write_text(f"# Results\n\nWhy: \\1.\n\n{OPENING}\nold\n{CLOSING}\n\n## What it means\n\nMuch.\n")

    write(OUTCOMES, tmp_path)
    once = file.read_text()
    write(OUTCOMES, tmp_path)

    assert file.read_text() == once
    assert once.startswith(f"# Results\n\nWhy: \\1.\n\n{OPENING}\n")
    assert once.endswith(f"{CLOSING}\n\n## What it means\n\nMuch.\n")
    assert printed() in once
    assert "old" not in once


@pytest.mark.parametrize(
    "text", ["prose", f"{OPENING} prose", f"{CLOSING} {OPENING}", f"{OPENING}{CLOSING}{OPENING}{CLOSING}"]
)
def test_page_without_its_markers_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.md"
    file.write_text(text)

    with pytest.raises(ValueError, match=r"results\.md needs a line"):
        write(OUTCOMES, tmp_path)
    assert file.read_text() == text
    assert not (tmp_path / "results.png").exists()


def with_gap(outcome: Outcome) -> Outcome:
    """With a residual gap of 10 %, of 30 % on real latents, and a quarter of L_CLIP's gradient."""
    values = {"residual": 0.5, "residual_shuffled": 0.55, "teacher_gradient_share": 0.25}
    log = [{"step": float(step), **values} for step in (10, 20)]
    real = {"residual": 0.2, "residual_shuffled": 0.26}
    return replace(outcome, log=log, options={**FORMATS, "steps": 20}, real=real)


def screened(outcomes: list[Outcome]) -> str:
    return screening_table(outcomes, BASE, {"sds": "clip"}, scoring_s=0.0)


def test_screening_has_a_row_an_arm_with_its_difference_probes_and_share() -> None:
    probes = {"pooled image embedding": [0.5, 0.6, 0.7], "text embedding": [0.8, 0.9, 1.0]}
    arms = [with_gap(run("sds", 12)), with_gap(run("sds", 14, seed=1))]
    arms = [replace(arm, probes=probes) for arm in arms]
    text = screened([*arms, run("clip", 2), run("clip", 4, seed=1)])

    (base,), (first,), (other,) = (cells(text, row) for row in ("base", "sds", "clip"))
    assert base[1:6] == ["0.0", "0.0", "0.0", "", "-2.96"]
    assert base[6:] == ["0.0", "90.0", "70.0", "", "", "", ""]
    assert first[1:4] == ["65.0", "65.0", "65.0"]
    assert first[4].startswith("+50.0 (+")
    assert first[4].endswith(") over clip")
    assert first[9:] == ["50.0 60.0 70.0", "80.0 90.0 100.0", "0.25", ""]
    assert other[4] == ""
    assert cells(text, "chance")[0][:6] == ["chance", "50.0", "50.0", "50.0", "", "0.00"]


def test_an_arm_whose_control_was_not_run_is_not_compared() -> None:
    assert cells(screened([with_gap(run("sds", 12))]), "sds")[0][4] == ""


def test_residual_gaps_stand_beside_those_on_real_latents() -> None:
    text = printed([with_gap(outcome) if outcome.variant == "sds" else outcome for outcome in OUTCOMES])

    assert cells(text, "sds")[-1] == ["sds", "layernorm", "+10.00", "+10.00, +10.00", "+30.00", "0.25"]
    assert "### Residual gap" not in printed()


def test_settings_share_a_file_without_touching_each_other(tmp_path: Path) -> None:
    file = tmp_path / "screening.md"
    write_screening("tags", OUTCOMES[::2], BASE, {"sds": "clip"}, tmp_path, scoring_s=0.0)
    write_screening("exact", OUTCOMES[:1], BASE, {"sds": "clip"}, tmp_path, scoring_s=0.0)

    exact, tags = file.read_text().split("<!-- tags -->")
    assert "| sds |" in tags
    assert "| sds |" not in exact
