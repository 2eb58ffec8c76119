"""The tables of the screening and of the confirmation, of outcomes that are known."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.experiment import Outcome, Variant
from demo.measure import StudentScores
from demo.probe import POOLED, TEXT
from demo.report import Compared, confirmation_tables, screening_table, write_confirmation, write_screening
from demo.winoground_sets import KINDS

ITEMS = [kind for kind in KINDS for _ in range(20)]
ARMS = [
    Variant.of("clip", objective="clip"),
    Variant.of("sds", objective="sds-clip", control="clip"),
]
SHARE = {"teacher_gradient_share": 0.25, "target_own": 0.5}


def run(variant: str, right: int, *, seed: int = 0, places: float = 0.5) -> Outcome:
    """A run that has the first `right` items of each kind right, by group score and by GroupMatch, and all images."""
    text = [number < right for number in range(20)] * 3
    margins = [1.0 if each else -1.0 for each in text]
    measured = StudentScores(ITEMS, text, [True] * 60, 0.9, 0.71, margins)
    log = [{"step": step, **(SHARE if variant == "sds" else {})} for step in (10.0, 20.0)]
    probes = {POOLED: [places, places + 0.1, 0.7], TEXT: [0.8, 0.9, 1.0]}
    return Outcome(variant, "all", seed, "heldout", 450.0, {}, measured, log, probes)


BASE = run("base", 4)
OUTCOMES = [run("clip", 2), run("clip", 4, seed=1), run("sds", 12), run("sds", 14, seed=1)]
PAGE = "# Page\n\n<!-- exact -->\n<!-- /exact -->\n\n<!-- tags -->\nkept\n<!-- /tags -->\n"


def cells(text: str, row: str) -> list[list[str]]:
    """The cells of all rows of that name."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith(f"| {row} |")]
    return [[cell.strip() for cell in line] for line in lines]


def test_screening_has_a_row_an_arm_with_its_difference_probes_and_share() -> None:
    text = screening_table(OUTCOMES, BASE, ARMS, scoring_s=600.0)

    (base,), (clip,), (sds,), (chance,) = (cells(text, row) for row in ("base", "clip", "sds", "chance"))
    assert base[1:6] == ["20.0", "20.0", "20.0", "20.0", ""]
    assert base[7:] == ["20.0", "90.0", "71.0", "50.0 60.0 70.0", "80.0 90.0 100.0", "", ""]
    assert clip[1:6] == ["15.0", "15.0", "15.0", "15.0", ""]
    assert sds[1:5] == ["65.0"] * 4
    assert sds[5].startswith("+50.0 (+")
    assert sds[5].endswith(") over clip")
    assert sds[7:] == ["65.0", "90.0", "71.0", "50.0 60.0 70.0", "80.0 90.0 100.0", "0.25", "0.50"]
    assert chance[1:10] == ["50.0", "50.0", "50.0", "50.0", "", "0.00", "16.7", "0.8", "0.5"]
    assert "4 runs (seeds 0, 1), 30 minutes of one core, and 10 for the teacher's scores" in text


def test_an_arm_whose_control_was_not_run_is_not_compared() -> None:
    assert cells(screening_table(OUTCOMES[2:], BASE, ARMS[1:], scoring_s=0.0), "sds")[0][5] == ""


def test_settings_share_a_file_without_touching_each_other(tmp_path: Path) -> None:
    file = tmp_path / "screening.md"
    file.write_text(PAGE)
    for _ in range(2):
        write_screening("exact", OUTCOMES, BASE, ARMS, tmp_path, scoring_s=0.0)
    exact, tags = file.read_text().split("<!-- tags -->")
    assert exact.count("| sds |") == 1
    assert tags == "\nkept\n<!-- /tags -->\n"


@pytest.mark.parametrize("text", ["", "<!-- exact -->", "<!-- /exact --><!-- exact -->", PAGE + PAGE])
def test_page_without_its_markers_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "screening.md"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"screening\.md needs a line"):
        write_screening("exact", OUTCOMES, BASE, ARMS, tmp_path, scoring_s=0.0)
    assert file.read_text() == text


def compared(*, gain: int, places: bool = False) -> Compared:
    """Four bases with two seeds each; the objective has `gain` more items of each kind, and points of places."""

    def arm(name: str, more: int) -> list[list[Outcome]]:
        return [
            [run(name, 5 + base + more, seed=seed, places=0.5 + 0.01 * (base + more)) for seed in (0, 1)]
            for base in range(4)
        ]

    base = [[run("base", 5)] for _ in range(4)]
    arms = {"base": base, "clip": arm("clip", 0), "sds": arm("sds", gain)}
    return Compared("exact", arms, objective="sds", control="clip", places=places)


def test_a_difference_that_all_bases_have_is_told_with_its_interval_over_the_items() -> None:
    text = confirmation_tables([compared(gain=4), compared(gain=0)])
    gained, none = cells(text, "exact: sds over clip")
    assert gained[1].startswith("+20.0 (+")
    assert gained[2] == "+20.0, +20.0, +20.0, +20.0"
    assert float(gained[3].removeprefix("< ")) < 0.05
    assert gained[-1] == "no"
    assert none[1:] == [
        "+0.0 (+0.0 to +0.0)",
        "+0.0, +0.0, +0.0, +0.0",
        "1.00",
        "1.00",
        "+0.0 to +0.0",
        "yes",
    ]


def test_two_tests_double_the_smaller_p() -> None:
    one, two = compared(gain=4), compared(gain=4)
    first, _ = cells(confirmation_tables([one, two]), "exact: sds over clip")
    assert float(first[4]) == pytest.approx(2 * float(first[3]), rel=0.06)  # both are rounded to two digits


def test_each_arm_stands_with_chance_beside_it() -> None:
    text = confirmation_tables([compared(gain=4)])
    clip, sds, chance = (cells(text, row)[0] for row in ("clip", "sds", "chance"))
    assert clip[1].startswith("32.5 (")  # the mean of 5, 6, 7 and 8 of 20
    assert sds[1].startswith("52.5 (")
    assert sds[2:5] == ["52.5"] * 3
    assert sds[6:] == ["52.5", "90.0", "71.0", "60.5"]
    assert chance[1:] == ["50.0", "50.0", "50.0", "50.0", "0.00", "16.7", "0.8", "0.5", "50.0"]


def test_the_probe_of_places_is_the_mean_of_shapes_and_colours_from_the_image() -> None:
    found = compared(gain=5, places=True)
    assert found.values("clip").shape == (4, 2, 1)
    assert found.values("clip")[:, 0, 0] == pytest.approx([0.55, 0.56, 0.57, 0.58])
    assert found.difference().mean == pytest.approx(0.05)
    assert cells(confirmation_tables([found]), "sds")[0][1].startswith("61.5 (")


def test_a_test_is_complete_if_every_base_has_every_run() -> None:
    found = compared(gain=0)
    assert found.complete
    assert not Compared("exact", {**found.arms, "sds": [*found.arms["sds"][:3], []]}, "sds", "clip").complete
    assert not Compared("exact", {**found.arms, "base": [[]] * 4}, "sds", "clip").complete


def test_confirmation_is_written_between_its_markers_with_a_figure(tmp_path: Path) -> None:
    (tmp_path / "results.md").write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    write_confirmation([compared(gain=4), compared(gain=5, places=True)], tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    with Image.open(tmp_path / "results.png") as figure:
        assert len(np.unique(np.asarray(figure.convert("RGB")).reshape(-1, 3), axis=0)) > 4
